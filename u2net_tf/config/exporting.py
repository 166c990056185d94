"""Settings of `u2net_tf.export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.network import PRUNE_TO
from u2net_tf.plan.limits import Depth

ExportFormat = Literal["saved_model", "onnx", "openvino"]
# Overlap of neighbouring windows, as a fraction of the window size.
DEFAULT_OVERLAP = 0.5


class ExportConfig(Config):
    """Settings of `u2net_tf.export`."""

    model_dir: str = Field(
        description="Folder of a model (written by train, adapt or compose) or of "
        "several independent models."
    )
    output: str = Field(
        description="Folder to write, new or empty: a SavedModel, or for each domain "
        "DOMAIN.onnx (onnx) or DOMAIN.xml and DOMAIN.bin (openvino)."
    )
    format: ExportFormat = Field(
        "saved_model", description="Format of the exported model."
    )
    domains: tuple[str, ...] = Field(
        (),
        description="Domains to export; all if empty. Variables of other domains are "
        "left out.",
    )
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to export: newest (the newest intact one), best or "
        "step-N.",
    )
    prune_to: Depth | None = PRUNE_TO
    any_size: bool = Field(
        False,
        description="Accept patches whose size along each axis is any multiple of "
        "2**pools, not only patches of the domain's patch size. Not available for "
        "models that resize patches.",
    )
    volumes: bool = Field(
        False,
        description="Also write signatures segment_volume_DOMAIN, which segment a "
        "preprocessed volume of any size with a sliding window. SavedModel only.",
    )
    overlap: float | None = Field(
        None,
        ge=0,
        le=0.95,
        description="Overlap of neighbouring windows in signatures for volumes, as a "
        f"fraction of the window size; {DEFAULT_OVERLAP} if not given.",
    )
