"""What the batches of a run look like."""

from __future__ import annotations

import math
from typing import Literal, get_args

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.augmentation import AugmentationConfig, Probability
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.schema import Size

ResizeMethod = Literal["linear", "cubic"]
RESIZE_METHODS = get_args(ResizeMethod)


class SamplingConfig(Config):
    """How patches are chosen; what is left of the shares lies anywhere.

    Reference: 3D U²-Net's published code; the paper does not say.
    """

    oversample_foreground_fraction: Probability = Field(
        1 / 3,
        description="Share of a batch, rounded up, that is certain to be drawn around "
        "foreground.",
    )
    smallest_share: Probability = Field(
        0.3,
        description="Share of the others drawn around the case's smallest class.",
    )
    foreground_share: Probability = Field(
        0.3, description="Share of the others drawn around any foreground class."
    )
    mirror_probability: Probability = Field(
        0.3, description="Of mirroring along each axis that the plan allows."
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.smallest_share + self.foreground_share > 1:
            raise InputError(
                "`smallest_share` + `foreground_share`",
                expected="at most 1",
                received=f"{self.smallest_share} + {self.foreground_share}",
            )
        return self

    def num_certain(self, batch_size: int) -> int:
        """How many patches of a batch are certain to be drawn around foreground."""
        # Rounded first: 3 * (1 / 3) must not become 2 by a last bit.
        return math.ceil(round(batch_size * self.oversample_foreground_fraction, 6))


class DataConfig(Config):
    """The input pipeline."""

    data_dir: str = Field(description="Folder that convert wrote.")
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of the plan to leave out of training and to validate on; "
        "train on all folds if not given.",
    )
    batch_size: int = Field(
        0, ge=0, description="Patches per batch; the plan's per domain if 0."
    )
    patch_size: tuple[Size, Size, Size] | None = Field(
        None,
        description="The network's patch z,y,x, voxels: patches are cut at each "
        "domain's own size and resized to it. If empty, they stay as they are cut.",
    )
    resize_method: ResizeMethod = Field(
        "linear", description="How images of patches are resized or augmented."
    )
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    input_memory_mb: float = Field(
        2048.0,
        gt=0,
        description="Memory for cases that are shuffled, patches that are cut and "
        "mixed and batches that are ready, of all domains together, MB. On top come, "
        "for each domain, a batch and the record that it reads from.",
    )
    patches_per_volume: int = Field(
        0,
        ge=0,
        description="Patches cut of a case that was read, mixed with those of other "
        "cases; if 0 one, and more of cases that take over 64 MB.",
    )
    num_parallel_calls: int = Field(
        0,
        ge=0,
        description="Patches of a domain cut in parallel, whatever memory they need; "
        "as many as input_memory_mb has room for if 0. Changes speed, not results.",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Of weights, patches and mirroring."
    )
