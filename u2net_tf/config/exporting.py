"""Settings of the command that exports models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.plan.limits import Depth

ExportFormat = Literal["saved_model", "onnx", "openvino"]
# Share of a window that the next one covers again.
DEFAULT_OVERLAP = 0.5


class ExportConfig(Config):
    """Settings of `u2net_tf.export`."""

    model_dir: str = Field(
        description="Folder that training, adapt or compose wrote, or that of several "
        "independent models."
    )
    output: str = Field(
        description="Folder to write: a SavedModel, or DOMAIN.onnx or DOMAIN.xml and "
        "DOMAIN.bin for each domain. It must be new or empty."
    )
    format: ExportFormat = Field("saved_model", description="What to write.")
    domains: tuple[str, ...] = Field(
        (),
        description="Domains to export; all if empty. The variables of others are left "
        "out.",
    )
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to export: newest (newest intact), best or step-N.",
    )
    prune_to: Depth | None = Field(
        None,
        description="Depth L to which a unet_sharp is pruned: its head on X^{0,L} and "
        "the nodes that it needs. The whole network if not given.",
    )
    any_size: bool = Field(
        False,
        description="Take patches of any size that the network can halve, not only of "
        "the domain's own. Not of models that resize patches.",
    )
    volumes: bool = Field(
        False,
        description="Also write signatures segment_volume_DOMAIN, which slide over a "
        "preprocessed volume of any size and return its classes. SavedModel only.",
    )
    overlap: float | None = Field(
        None,
        ge=0,
        le=0.95,
        description="Share of a window that the next one covers again, in these "
        f"signatures; {DEFAULT_OVERLAP} if not given.",
    )
