"""Settings of the input pipeline."""

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
    """Patch sampling; patches not drawn around foreground are drawn anywhere.

    Reference: 3D U²-Net's published code; the paper does not specify it.
    """

    oversample_foreground_fraction: Probability = Field(
        1 / 3,
        description="Fraction of each batch's patches that are always drawn around "
        "foreground; the number of patches is rounded up.",
    )
    smallest_share: Probability = Field(
        0.3,
        description="Fraction of the patches not covered by "
        "oversample_foreground_fraction that are drawn around the smallest class of "
        "the case.",
    )
    foreground_share: Probability = Field(
        0.3,
        description="Fraction of the patches not covered by "
        "oversample_foreground_fraction that are drawn around any foreground class; "
        "the others are drawn anywhere, or, with an ignore label, around annotated "
        "background.",
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
        """Returns how many patches of a batch are always drawn around foreground."""
        # Rounded first, so that a rounding error does not raise 3 * (1 / 3) to 2.
        return math.ceil(round(batch_size * self.oversample_foreground_fraction, 6))


class DataConfig(Config):
    """Data, batches, patches and memory of the input pipeline."""

    data_dir: str = Field(description="Folder of shards written by data_prep.convert.")
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of the plan to hold out for validation; if not given, all "
        "folds are used for training.",
    )
    batch_size: int = Field(
        0,
        ge=0,
        description="Patches per batch; 0 uses the plan's batch size for each domain.",
    )
    patch_size: PatchSize | None = Field(
        None,
        description="Patch size of the network (z,y,x), voxels. Patches are cropped "
        "at the patch size of their domain and resized to this size; if empty, they "
        "are not resized.",
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
        description="Memory limit of the input pipeline's buffers for all domains "
        "together, MB: shuffled records, cropped and interleaved patches and "
        "prefetched batches. Each domain also needs memory for a batch and the record "
        "being read. Affects the batches of domains whose cases do not all fit into "
        "the shuffle buffer or yield several patches each.",
    )
    patches_per_volume: int = Field(
        0,
        ge=0,
        description="Number of patches to crop each time a case is read, interleaved "
        "with those of other cases. 0 chooses automatically: 1, or more for cases over "
        "64 MB.",
    )
    num_parallel_calls: int = Field(
        0,
        ge=0,
        description="Number of patches per domain to crop in parallel, regardless "
        "of the memory they need; 0 derives the number from input_memory_mb. Affects "
        "speed, not results.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed for initialization, patch sampling, augmentation and "
        "dropout.",
    )
