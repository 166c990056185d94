"""Settings of the commands that draw pictures."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.config import JsonDict

from u2net_tf.config.base import Config
from u2net_tf.config.data import DataConfig

_OUTPUT = "Picture to write (.png)."
# A flag that may be given several times. Its help has no full stop, since absl appends
# "; repeat this option".
_REPEATED: JsonDict = {"repeated": True}


class OverlaysConfig(Config):
    """Settings of `u2net_tf.draw_overlays`."""

    image: tuple[str, ...] = Field(
        description="Image file, or folder with the images of one domain",
        json_schema_extra=_REPEATED,
    )
    reference: tuple[str, ...] = Field(
        (),
        description="File or folder of reference label maps, one for each image flag, "
        "empty if there are none",
        json_schema_extra=_REPEATED,
    )
    prediction: tuple[str, ...] = Field(
        description="File or folder of predicted label maps, one for each image flag",
        json_schema_extra=_REPEATED,
    )
    plan: str | None = Field(
        None,
        description="Plan with the names of domains and classes; if not given, they "
        "are read from dataset.json next to the image folder.",
    )
    output: str = Field(description=_OUTPUT)
    cases: int = Field(
        4, ge=1, description="Maximum number of cases drawn from each image folder."
    )


class CurvesConfig(Config):
    """Settings of `u2net_tf.plot_training`."""

    model_dir: str = Field(description="Folder of a training run.")
    output: str = Field(description=_OUTPUT)


class ContactSheetConfig(Config):
    """Settings of `u2net_tf.show_augmentations`."""

    # The sheet shows each patch that is drawn, always around foreground.
    not_flags: ClassVar[frozenset[str]] = frozenset(
        {
            "fold",
            "batch_size",
            "oversample_foreground_fraction",
            "smallest_share",
            "foreground_share",
            "input_memory_mb",
            "patches_per_volume",
            "num_parallel_calls",
        }
    )

    data: DataConfig
    domain: str = Field(description="Domain to show.")
    output: str = Field(description=_OUTPUT)
    num_patches: int = Field(6, ge=1, description="Number of patches, one per row.")
    modality: int = Field(0, ge=0, description="Index of the modality to show.")
