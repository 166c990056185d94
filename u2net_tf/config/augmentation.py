"""What may happen to a patch, how often and how much."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.errors import InputError

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]

# Least and greatest value that each range may hold; above 0 and 1e6 where not given.
_LEAST = {
    "elastic_alpha": 0.0,
    # The deformation is drawn on a lattice of this spacing.
    "elastic_sigma_mm": 1.0,
    "noise_variance": 0.0,
    "rotation_degrees": -360.0,
}
_MOST = {
    "blur_sigma_voxels": 100.0,
    "low_resolution_zoom": 1.0,
    "rotation_degrees": 360.0,
    # A patch reads so many times its own extent.
    "scale": 10.0,
}
_LARGEST_SIGMA_RATIO = 10


class AugmentationConfig(Config):
    """Augmentation of patches; every part is off until it has a probability.

    A range is (lowest, highest); the value of a patch, or of a modality, is drawn
    uniformly from it. The ranges of elastic deformation, rotation and scaling are the
    paper's. Mirroring is a part of `SamplingConfig`. The others are what nnU-Net has,
    with its ranges; its probabilities are given in brackets.

    A patch is turned and scaled about its centre. One that is drawn around foreground
    near the volume's border has that off its centre, and may lose it.

    Reference: the parameters of Huang et al., MICCAI 2019 (rotation, scaling, elastic
    deformation), and of Isensee et al., Nature Methods 2021 (the others).
    """

    elastic_probability: Probability = Field(
        0.0, description="Of deforming a patch; 0.3 in the paper."
    )
    elastic_alpha: Range = Field(
        (0.0, 750.0),
        description="Lowest and highest strength of a deformation; displacements have "
        "a standard deviation of elastic.displacement_std millimetres.",
    )
    elastic_sigma_mm: Range = Field(
        (10.0, 13.0),
        description="Lowest and highest smoothness of a deformation, mm: displacements "
        "r mm apart are correlated by exp(-r² / (4 sigma²)). The highest is at most "
        "ten times the lowest.",
    )
    rotation_probability: Probability = Field(
        0.0, description="Of turning a patch about z; 0.3 in the paper."
    )
    rotation_degrees: Range = Field(
        (-180.0, 180.0), description="Lowest and highest angle."
    )
    scaling_probability: Probability = Field(
        0.0, description="Of scaling all axes of a patch alike; 0.5 in the paper."
    )
    scale: Range = Field(
        (0.75, 1.25),
        description="Lowest and highest factor of what a patch sees: above 1, organs "
        "shrink.",
    )
    noise_probability: Probability = Field(
        0.0, description="Of Gaussian noise in a patch [0.1]."
    )
    noise_variance: Range = Field(
        (0.0, 0.1), description="Lowest and highest variance of the noise."
    )
    blur_probability: Probability = Field(
        0.0, description="Of blurring a modality [0.1]."
    )
    blur_sigma_voxels: Range = Field(
        (0.5, 1.0),
        description="Lowest and highest standard deviation of the blur, voxels of the "
        "network's patch.",
    )
    brightness_probability: Probability = Field(
        0.0, description="Of multiplying the intensities of a modality [0.15]."
    )
    brightness: Range = Field((0.75, 1.25), description="Lowest and highest factor.")
    contrast_probability: Probability = Field(
        0.0,
        description="Of stretching the intensities of a modality within the range that "
        "they had [0.15].",
    )
    contrast: Range = Field(
        (0.75, 1.25), description="Lowest and highest factor, about the mean."
    )
    low_resolution_probability: Probability = Field(
        0.0,
        description="Of going to a coarser grid and back, per modality [0.125].",
    )
    low_resolution_zoom: Range = Field(
        (0.5, 1.0), description="Lowest and highest size of the coarser grid, a share."
    )
    gamma_probability: Probability = Field(
        0.0,
        description="Of a power of a modality's intensities, keeping mean and standard "
        "deviation [0.3].",
    )
    gamma_inverted_probability: Probability = Field(
        0.0,
        description="Probability of gamma on inverted intensities, per modality [0.1].",
    )
    gamma: Range = Field((0.7, 1.5), description="Lowest and highest exponent.")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name in type(self).model_fields:
            if not name.endswith("_probability"):
                _check_range(name, getattr(self, name))
        lowest, highest = self.elastic_sigma_mm
        # The lowest is the step of a lattice that reaches beyond the patch by a
        # multiple of the highest.
        if highest > _LARGEST_SIGMA_RATIO * lowest:
            raise InputError(
                "`elastic_sigma_mm`",
                expected=f"a highest value of at most {_LARGEST_SIGMA_RATIO} times the "
                "lowest",
                received=self.elastic_sigma_mm,
            )
        return self

    @property
    def moves_voxels(self) -> bool:
        """Whether any patch may be deformed, rotated or scaled."""
        return any(
            (
                self.elastic_probability,
                self.rotation_probability,
                self.scaling_probability,
            )
        )

    @property
    def changes_intensities(self) -> bool:
        """Whether intensities of any patch may change where they are."""
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
    least = _LEAST.get(name)
    most = _MOST.get(name, 1e6)
    wanted = "(lowest, highest), both above 0"
    if least is not None:
        wanted = f"(lowest, highest), both at least {least:g}"
    wanted += f" and at most {most:g}"
    right = value[0] <= value[1]
    right = right and (value[0] > 0 if least is None else value[0] >= least)
    right = right and value[1] <= most
    if not right:
        raise InputError(f"`{name}`", expected=wanted, received=value)
