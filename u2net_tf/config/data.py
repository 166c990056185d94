"""Settings of the input pipeline: what the batches of a run look like."""

from __future__ import annotations

import math
from typing import Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.augmentation import AugmentationConfig, Probability
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.plan.limits import PatchSize

ResizeMethod = Literal["linear", "cubic"]


class SamplingConfig(Config):
    """Where patches are drawn; the remaining fraction is drawn anywhere.

    Reference: 3D U²-Net's published code; the paper does not say.
    """

    oversample_foreground_fraction: Probability = Field(
        1 / 3,
        description="Fraction of a batch, rounded up, that is always drawn around "
        "foreground.",
    )
    smallest_share: Probability = Field(
        0.3,
        description="Fraction of the other patches drawn around the case's smallest "
        "class.",
    )
    foreground_share: Probability = Field(
        0.3,
        description="Fraction of the other patches drawn around any foreground class.",
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

    def num_foreground_patches(self, batch_size: int) -> int:
        """How many patches of a batch are always drawn around foreground."""
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
    patch_size: PatchSize | None = Field(
        None,
        description="The network's patch size z,y,x, voxels: patches are cropped at "
        "each domain's own size and resized to it. If empty, they are not resized.",
    )
    resize_method: ResizeMethod = Field(
        "linear",
        description="Interpolation of images when patches are resized or warped.",
    )
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    input_memory_mb: float = Field(
        2048.0,
        gt=0,
        description="Memory for records that are shuffled, patches that are cropped "
        "and interleaved and batches that are ready, of all domains together, MB. In "
        "addition each domain needs a batch and the record that it reads from.",
    )
    patches_per_volume: int = Field(
        0,
        ge=0,
        description="Patches per case read, interleaved with those of other cases; 0 "
        "chooses (1, or more for cases over 64 MB).",
    )
    num_parallel_calls: int = Field(
        0,
        ge=0,
        description="Patches of a domain cropped in parallel, whatever memory they "
        "need; 0 chooses by input_memory_mb. Changes speed, not results.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed for initialization, patch sampling and augmentation.",
    )
