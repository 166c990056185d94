"""Augmentation of patches: transforms, their probabilities and strengths."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.errors import InputError

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]

# Smallest and largest value allowed in each range; above 0 and 1e6 unless listed.
_MIN = {
    "elastic_alpha": 0.0,
    # The deformation is drawn on a lattice of this spacing.
    "elastic_sigma_mm": 1.0,
    "noise_variance": 0.0,
    "rotation_degrees": -360.0,
}
_MAX = {
    "blur_sigma_voxels": 100.0,
    "low_resolution_zoom": 1.0,
    "rotation_degrees": 360.0,
    # Largest multiple of its own extent that a patch may read.
    "scale": 10.0,
}
_MAX_SIGMA_RATIO = 10


class AugmentationConfig(Config):
    """Augmentation of patches; everything but mirroring is off by default.

    A range is (lowest, highest); the value for a patch or a modality is drawn uniformly
    from it. The ranges of elastic deformation, rotation and scaling are the paper's;
    the intensity transforms and their ranges are nnU-Net's.

    A patch is rotated and scaled about its centre. If it was drawn around foreground
    near the border of the volume, the foreground is off-centre and may be lost.

    Reference: the parameters of Huang et al., MICCAI 2019 (rotation, scaling, elastic
    deformation), and of Isensee et al., Nature Methods 2021 (the others).
    """

    mirror_probability: Probability = Field(
        0.3,
        description="Probability of mirroring, for each axis that the plan allows.",
    )
    elastic_probability: Probability = Field(
        0.0, description="Probability of an elastic deformation; 0.3 in the paper."
    )
    elastic_alpha: Range = Field(
        (0.0, 750.0),
        description="Lowest and highest strength alpha of an elastic deformation. The "
        "standard deviation of displacements is alpha √(1/3) (2 √π sigma)^(-3/2) mm.",
    )
    elastic_sigma_mm: Range = Field(
        (10.0, 13.0),
        description="Lowest and highest smoothness sigma of an elastic deformation, "
        "mm: displacements r mm apart are correlated by exp(-r² / (4 sigma²)). The "
        "highest must be at most ten times the lowest.",
    )
    rotation_probability: Probability = Field(
        0.0, description="Probability of a rotation about the z axis; 0.3 in the paper."
    )
    rotation_degrees: Range = Field(
        (-180.0, 180.0), description="Lowest and highest rotation angle, degrees."
    )
    scaling_probability: Probability = Field(
        0.0, description="Probability of isotropic scaling; 0.5 in the paper."
    )
    scale: Range = Field(
        (0.75, 1.25),
        description="Lowest and highest factor by which a patch's extent is scaled; "
        "above 1, organs appear smaller.",
    )
    noise_probability: Probability = Field(
        0.0, description="Probability of Gaussian noise, per patch; 0.1 in nnU-Net."
    )
    noise_variance: Range = Field(
        (0.0, 0.1), description="Lowest and highest variance of the Gaussian noise."
    )
    blur_probability: Probability = Field(
        0.0, description="Probability of a Gaussian blur, per modality; 0.1 in nnU-Net."
    )
    blur_sigma_voxels: Range = Field(
        (0.5, 1.0),
        description="Lowest and highest standard deviation of the Gaussian blur, in "
        "voxels of the network's patch.",
    )
    brightness_probability: Probability = Field(
        0.0,
        description="Probability of multiplying intensities by a brightness factor, "
        "per modality; 0.15 in nnU-Net.",
    )
    brightness: Range = Field(
        (0.75, 1.25), description="Lowest and highest brightness factor."
    )
    contrast_probability: Probability = Field(
        0.0,
        description="Probability of scaling intensities about their mean by a "
        "contrast factor, clipped to their range, per modality; 0.15 in nnU-Net.",
    )
    contrast: Range = Field(
        (0.75, 1.25), description="Lowest and highest contrast factor."
    )
    low_resolution_probability: Probability = Field(
        0.0,
        description="Probability of simulating low resolution by resampling to a "
        "coarser grid and back, per modality; 0.125 in nnU-Net.",
    )
    low_resolution_zoom: Range = Field(
        (0.5, 1.0),
        description="Lowest and highest size of the coarser grid, as a fraction of the "
        "patch size.",
    )
    gamma_probability: Probability = Field(
        0.0,
        description="Probability of a gamma transform that keeps mean and standard "
        "deviation, per modality; 0.3 in nnU-Net.",
    )
    gamma_inverted_probability: Probability = Field(
        0.0,
        description="Probability of a gamma transform of the inverted image, per "
        "modality; 0.1 in nnU-Net.",
    )
    gamma: Range = Field(
        (0.7, 1.5), description="Lowest and highest exponent of the gamma transforms."
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name in type(self).model_fields:
            if not name.endswith("_probability"):
                _check_range(name, getattr(self, name))
        lowest, highest = self.elastic_sigma_mm
        # The lowest is the spacing of a lattice that extends beyond the patch by a
        # multiple of the highest, so their ratio bounds the part beyond the patch.
        if highest > _MAX_SIGMA_RATIO * lowest:
            raise InputError(
                "`elastic_sigma_mm`",
                expected=f"a highest value of at most {_MAX_SIGMA_RATIO} times the "
                "lowest",
                received=self.elastic_sigma_mm,
            )
        return self

    @property
    def moves_voxels(self) -> bool:
        """Whether any patch may be deformed, rotated or scaled, not only mirrored."""
        return any(
            (
                self.elastic_probability,
                self.rotation_probability,
                self.scaling_probability,
            )
        )

    @property
    def changes_intensities(self) -> bool:
        """Whether the intensities of any patch may change."""
        return any(
            (
                self.noise_probability,
                self.blur_probability,
                self.brightness_probability,
                self.contrast_probability,
                self.low_resolution_probability,
                self.gamma_probability,
                self.gamma_inverted_probability,
            )
        )


def _check_range(name: str, value: Range) -> None:
    low, high = value
    minimum, maximum = _MIN.get(name), _MAX.get(name, 1e6)
    expected = "(lowest, highest), both above 0"
    if minimum is not None:
        expected = f"(lowest, highest), both at least {minimum:g}"
    is_large_enough = low > 0 if minimum is None else low >= minimum
    if not (is_large_enough and low <= high <= maximum):
        expected += f" and at most {maximum:g}"
        raise InputError(f"`{name}`", expected=expected, received=value)
