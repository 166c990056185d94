"""What may happen to a patch, how often and how much."""

from __future__ import annotations

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation of patches; every part is off until it has a probability.

    A range is (lowest, highest); the value of a patch, or of a modality, is drawn
    uniformly from it. The ranges of the first three are the paper's, which has them
    with the probabilities 0.3, 0.3 and 0.5. Mirroring is a part of
    `patches.Sampling`. The others are what nnU-Net has, with its ranges; its
    probabilities are given in brackets.

    A patch is turned and scaled about its centre. One that is drawn around foreground
    near the volume's border has that off its centre, and may lose it.

    Attributes:
      elastic_probability: of an elastic deformation, per patch.
      elastic_alpha: its strength. The displacement along each axis has a standard
        deviation of `elastic.displacement_std` millimetres.
      elastic_sigma_mm: its smoothness, mm: displacements r mm apart are correlated by
        exp(-r² / (4 sigma²)). The highest is at most ten times the lowest.
      rotation_probability: of a rotation about z, per patch.
      rotation_degrees: its angle.
      scaling_probability: of scaling all axes alike, per patch.
      scale: the factor that the patch's extent is multiplied by: above 1 more of the
        volume is seen and organs look smaller.
      noise_probability: of Gaussian noise, per patch [0.1].
      noise_variance: of that noise, in all modalities.
      blur_probability: of Gaussian blur, per modality [0.1].
      blur_sigma_voxels: its standard deviation, voxels of the network's patch.
      brightness_probability: of multiplying intensities, per modality [0.15].
      brightness: the factor.
      contrast_probability: of stretching intensities about their mean without leaving
        the range that they had, per modality [0.15].
      contrast: the factor.
      low_resolution_probability: of going down to a coarser grid and back, per
        modality [0.125].
      low_resolution_zoom: size of the coarser grid over that of the patch.
      gamma_probability: of a power of intensities in the range that they have, keeping
        mean and standard deviation, per modality [0.3].
      gamma_inverted_probability: of the same after turning the intensities round, per
        modality [0.1].
      gamma: the exponent.

    Reference: the parameters of Huang et al., MICCAI 2019 (rotation, scaling, elastic
    deformation), and of Isensee et al., Nature Methods 2021 (the others).
    """

    elastic_probability: float = 0.0
    elastic_alpha: Range = (0.0, 750.0)
    elastic_sigma_mm: Range = (10.0, 13.0)
    rotation_probability: float = 0.0
    rotation_degrees: Range = (-180.0, 180.0)
    scaling_probability: float = 0.0
    scale: Range = (0.75, 1.25)
    noise_probability: float = 0.0
    noise_variance: Range = (0.0, 0.1)
    blur_probability: float = 0.0
    blur_sigma_voxels: Range = (0.5, 1.0)
    brightness_probability: float = 0.0
    brightness: Range = (0.75, 1.25)
    contrast_probability: float = 0.0
    contrast: Range = (0.75, 1.25)
    low_resolution_probability: float = 0.0
    low_resolution_zoom: Range = (0.5, 1.0)
    gamma_probability: float = 0.0
    gamma_inverted_probability: float = 0.0
    gamma: Range = (0.7, 1.5)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability"):
                if not 0 <= value <= 1:
                    raise ValueError(
                        f"{field.name}: expected a probability from 0 to 1. "
                        f"Received: {value}"
                    )
            else:
                _check_range(field.name, value)
        lowest, highest = self.elastic_sigma_mm
        # The lowest is the step of a lattice that reaches beyond the patch by a
        # multiple of the highest.
        if highest > _LARGEST_SIGMA_RATIO * lowest:
            raise ValueError(
                "elastic_sigma_mm: expected the highest to be at most "
                f"{_LARGEST_SIGMA_RATIO} times the lowest. Received: "
                f"{self.elastic_sigma_mm}"
            )

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
    right = len(value) == 2 and value[0] <= value[1]
    right = right and (value[0] > 0 if least is None else value[0] >= least)
    right = right and value[1] <= most
    if not right:
        raise ValueError(f"{name}: expected {wanted}. Received: {value}")
