"""Building blocks of synthetic anatomies: random shapes, tissues and scanning.

An anatomy is a list of tissues, each painted over the previous ones in patient
coordinates in mm (x to the right, y to the front, z to the head), and sampled on the
grid of a scan, given by its affine. A tilted or flipped scan therefore shows the same
patient, and sampling inside the voxels produces partial volume effects.

The scans are difficult by design: neighbours as bright as the organ, noise, thick
slices, a bias field. Organs can be recognized without knowing left from right, because
training mirrors at random.

Arrays are in the order of NIfTI here, (x, y, z), because they are written as they are.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

# Positions inside a voxel, in voxels, at which the anatomy is sampled.
_SUBSAMPLES = tuple(itertools.product((-0.25, 0.25), repeat=3))
# A vector, or three integers, along x, y, z.
Vector: TypeAlias = Sequence[float] | np.ndarray
Triple: TypeAlias = Sequence[int] | np.ndarray
# Half-length of structures that run through all slices: larger than any field of view.
THROUGH_MM = 1000.0


@dataclasses.dataclass(frozen=True)
class Phantom:
    """One case.

    Attributes:
      image: `[x, y, z]`, or `[x, y, z, modality]` for several modalities.
      labels: uint8 `[x, y, z]`.
      affine: float64 `[4, 4]`, from voxels to millimetres (RAS+).
    """

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@dataclasses.dataclass(frozen=True)
class Waves:
    """A smooth random function of position: a sum of plane waves.

    Attributes:
      vectors: float32 `[num_waves, 3]`, in radians per unit of length.
      phases: float32 `[num_waves]`, in radians.
      amplitude: the root mean square of the sum.
    """

    vectors: np.ndarray
    phases: np.ndarray
    amplitude: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Evaluates at `points` `[..., 3]`; returns `[...]`."""
        waves = np.cos(points @ self.vectors.T + self.phases).sum(axis=-1)
        return self.bound / len(self.phases) * waves

    @property
    def bound(self) -> float:
        """Upper bound of the absolute value."""
        return self.amplitude * float(np.sqrt(2.0 * len(self.phases)))


def draw_waves(
    rng: np.random.Generator, *, wavelength: float, amplitude: float, num_waves: int = 6
) -> Waves:
    """Draws waves in random directions with about the given wavelength."""
    directions = rng.normal(size=(num_waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequencies = 2 * np.pi / wavelength * rng.uniform(0.7, 1.2, (num_waves, 1))
    return Waves(
        vectors=(directions * frequencies).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, num_waves).astype(np.float32),
        amplitude=amplitude,
    )


@dataclasses.dataclass(frozen=True)
class Blob:
    """An ellipsoid whose radius varies slightly with direction.

    Attributes:
      centre_mm: float32 `[3]`.
      radii_mm: float32 `[3]`, along the axes of the blob.
      axes: float32 `[3, 3]`, a rotation; its rows are the axes of the blob.
      bumps: addition to the relative radius, as a function of direction.
    """

    centre_mm: np.ndarray
    radii_mm: np.ndarray
    axes: np.ndarray
    bumps: Waves

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """Returns which of `points_mm` `[..., 3]` are inside, bool `[...]`."""
        relative = (points_mm - self.centre_mm) @ self.axes.T / self.radii_mm
        radius = np.sqrt(np.einsum("...i,...i->...", relative, relative))
        # The bumps take most of the time and matter only near the surface.
        inside = radius < 1
        near = np.abs(radius - 1) <= self.bumps.bound
        directions = relative[near] / np.maximum(radius[near], 1e-6)[:, None]
        inside[near] = radius[near] < 1 + self.bumps(directions)
        return inside


def draw_blob(
    rng: np.random.Generator,
    centre_mm: Vector,
    radii_mm: Vector,
    *,
    jitter_mm: float = 2.0,
    max_tilt_degrees: float = 15.0,
    bumpiness: float = 0.05,
) -> Blob:
    """Draws a blob near `centre_mm` whose radii are within 15 % of `radii_mm`."""
    tilts = rng.uniform(-max_tilt_degrees, max_tilt_degrees, 3)
    return Blob(
        centre_mm=(centre_mm + rng.uniform(-jitter_mm, jitter_mm, 3)).astype(
            np.float32
        ),
        radii_mm=(radii_mm * rng.uniform(0.85, 1.15, 3)).astype(np.float32),
        axes=rotation(tilts).astype(np.float32),
        bumps=draw_waves(rng, wavelength=2.5, amplitude=bumpiness),
    )


@dataclasses.dataclass(frozen=True)
class Tissue:
    """A region and its signal.

    Attributes:
      shape: maps points in mm `[..., 3]` to bool `[...]`, true inside the region.
      signals: noise-free value in each modality.
      label: the class in the reference; 0 is background.
    """

    shape: Callable[[np.ndarray], np.ndarray]
    signals: tuple[float, ...]
    label: int = 0


def rotation(degrees: Vector) -> np.ndarray:
    """Returns the float64 `[3, 3]` rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def draw_affine(
    rng: np.random.Generator,
    shape: Triple,
    spacing_mm: Vector,
    *,
    tilt_degrees: Vector = (0.0, 0.0, 0.0),
    flips: Sequence[int] = (1, 1, 1),
) -> np.ndarray:
    """Draws the affine of a grid centred within 3 mm of the patient's centre.

    Args:
      rng: random generator of the shift.
      shape: voxels along x, y, z.
      spacing_mm: size of the voxels.
      tilt_degrees: rotation of the grid about x, y and z.
      flips: -1 for an axis that runs to the left, back or feet.

    Returns:
      The float64 `[4, 4]` affine.
    """
    affine = np.eye(4)
    affine[:3, :3] = rotation(tilt_degrees) @ np.diag(np.multiply(spacing_mm, flips))
    middle = (np.asarray(shape) - 1) / 2
    affine[:3, 3] = rng.uniform(-3, 3, 3) - affine[:3, :3] @ middle
    return affine


def voxel_points(
    shape: Triple, affine: np.ndarray, *, offset: Sequence[float] = (0, 0, 0)
) -> np.ndarray:
    """Returns voxel positions in mm, shifted by `offset` voxels, as `[x, y, z, 3]`."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = (indices + np.asarray(offset)) @ affine[:3, :3].T + affine[:3, 3]
    return points.astype(np.float32)


def scan(
    tissues: Sequence[Tissue], shape: Triple, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Samples an anatomy on a grid.

    Args:
      tissues: tissues in painting order; the first covers everything.
      shape: voxels along x, y, z.
      affine: `[4, 4]`, from voxels to mm.

    Returns:
      The mean signal of every voxel, float32 `[x, y, z, modality]`, and the class
      that fills most of it, uint8 `[x, y, z]`.
    """
    num_classes = 1 + max(tissue.label for tissue in tissues)
    signal = np.zeros((*shape, len(tissues[0].signals)), np.float32)
    votes = np.zeros((*shape, num_classes), np.uint8)
    for offset in _SUBSAMPLES:
        points = voxel_points(shape, affine, offset=offset)
        top = np.zeros(shape, np.intp)
        for index, tissue in enumerate(tissues):
            top[tissue.shape(points)] = index
        signal += np.array([tissue.signals for tissue in tissues], np.float32)[top]
        labels = np.array([tissue.label for tissue in tissues])[top]
        votes += labels[..., None] == np.arange(num_classes)
    return signal / len(_SUBSAMPLES), votes.argmax(axis=-1).astype(np.uint8)


def everywhere(points_mm: np.ndarray) -> np.ndarray:
    """Returns true for every point: bool `[...]` for `[..., 3]`."""
    return np.ones(points_mm.shape[:-1], bool)


def draw_pillar(
    rng: np.random.Generator, centre_mm: Sequence[float], radii_mm: Sequence[float]
) -> Blob:
    """Draws an elliptic cylinder along z through all slices."""
    return draw_blob(
        rng,
        (*centre_mm, 0.0),
        (*radii_mm, THROUGH_MM),
        jitter_mm=1.0,
        max_tilt_degrees=0.0,
        bumpiness=0.02,
    )


def smooth_in_plane(noise: np.ndarray) -> np.ndarray:
    """Correlates noise `[x, y, ...]` with its neighbours in the slice."""
    for axis in (0, 1):
        noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return noise / noise.std()


def apply_rician_noise(
    signal: np.ndarray, rng: np.random.Generator, sigma: float
) -> np.ndarray:
    """Returns the magnitude of `signal` plus complex noise, of the same shape."""
    real, imaginary = rng.normal(scale=sigma, size=(2, *signal.shape))
    return np.hypot(signal + real, imaginary)
