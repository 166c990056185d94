"""The three domains of the demo: anatomy of the patient and geometry of the scan.

Each `draw_*` takes a random generator and the number of the case. Geometries rotate
with this number, so that even a few cases cover every kind.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tools import phantoms
from tools.phantoms import Phantom, Tissue, draw_blob, draw_pillar


@dataclasses.dataclass(frozen=True)
class PhantomDomain:
    """One domain: its metadata in `dataset.json` and the function that draws cases."""

    name: str
    description: str
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    draw: Callable[[np.random.Generator, int], Phantom]


def _intersection(
    outer: Callable[[np.ndarray], np.ndarray], inner: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the intersection of two shapes."""
    return lambda points: outer(points) & inner(points)


def _draw_ct_anatomy(rng: np.random.Generator) -> list[Tissue]:
    """Draws a trunk on a table, in Hounsfield units; class 1 is the organ.

    The distractor is nearly as bright as the organ and on the opposite side; it is
    recognizable by its smaller size and its lack of vessels.
    """
    contrast = rng.uniform(75, 105)
    organ = draw_blob(rng, (13, 2, 0), (12, 16, 24), jitter_mm=3, bumpiness=0.1)
    tissues = [
        Tissue(phantoms.everywhere, (-1000,)),
        Tissue(lambda points: np.abs(points[..., 1] + 36) < 2, (-250,)),
        Tissue(draw_pillar(rng, (0, 0), (38, 32)), (-100,)),
        Tissue(draw_pillar(rng, (0, 0), (34.5, 28.5)), (60,)),
        Tissue(draw_pillar(rng, (0, 1), (30, 24)), (-90,)),
    ]
    for _ in range(rng.integers(5, 9)):
        middle = (rng.uniform(-22, 22), rng.uniform(-12, 20), rng.uniform(-34, 34))
        bowel = draw_blob(rng, middle, rng.uniform(4, 9, 3), max_tilt_degrees=90)
        tissues.append(Tissue(bowel, (rng.uniform(20, contrast),)))
    gas = draw_blob(rng, (-4, 17, rng.uniform(-20, 20)), (4, 3, 6))
    distractor = draw_blob(rng, (-17, -3, 0), (8, 11, 15), jitter_mm=4, bumpiness=0.1)
    tissues += [
        Tissue(gas, (-800,)),
        Tissue(distractor, (contrast - rng.uniform(5, 35),)),
        Tissue(organ, (contrast,), label=1),
    ]
    for _ in range(5):
        start = organ.centre_mm + rng.uniform(-7, 7, 3)
        vessel = draw_blob(rng, start, (2, 2, 16), max_tilt_degrees=60)
        tissues.append(Tissue(_intersection(organ, vessel), (contrast + 85,), label=1))
    spine = draw_blob(rng, (0, -19, 0), (7.5, 7, phantoms.THROUGH_MM), jitter_mm=1)
    canal = draw_pillar(rng, (0, -25), (3, 3))
    return [*tissues, Tissue(spine, (280,)), Tissue(canal, (30,))]


def _draw_shape(
    rng: np.random.Generator, low: Sequence[int], high: Sequence[int]
) -> list[int]:
    """Draws the number of voxels along x, y, z, from `low` to `high` (exclusive)."""
    return [int(rng.integers(*ends)) for ends in zip(low, high, strict=True)]


def draw_ct(rng: np.random.Generator, case: int) -> Phantom:
    """Draws a CT of the trunk: int16 HU, slices of about 4 mm, noise of 25 HU."""
    del case  # every CT is axial
    in_plane = rng.uniform(1.4, 1.65)
    spacing_mm = (in_plane, in_plane, rng.uniform(3.6, 4.4))
    shape = _draw_shape(rng, (54, 50, 16), (59, 55, 21))
    affine = phantoms.draw_affine(rng, shape, spacing_mm)
    signal, labels = phantoms.scan(_draw_ct_anatomy(rng), shape, affine)
    noise = 25 * phantoms.smooth_in_plane(rng.normal(size=shape))
    image = np.clip(signal[..., 0] + noise, -1024, 3071)
    return Phantom(np.rint(image).astype(np.int16), labels, affine)


def _draw_mr_anatomy(rng: np.random.Generator) -> list[Tissue]:
    """Draws a part of a brain, in relative signal; classes 1, 2 are head and tail.

    The thick head is slightly brighter than the thin tail. Nearby grey matter has the
    same brightness, and there is fluid along one side of them.
    """
    grey = rng.uniform(0.55, 0.62)
    side = int(rng.choice((-1, 1)))
    tissues = [
        Tissue(phantoms.everywhere, (0.0,)),
        Tissue(draw_blob(rng, (0, 0, 0), (22, 27, 21), jitter_mm=1), (0.85,)),
    ]
    for _ in range(rng.integers(6, 10)):
        direction = rng.normal(size=3) * (1, 1.2, 1)
        middle = direction / np.linalg.norm(direction) * rng.uniform(13, 19)
        gyrus = draw_blob(rng, middle, rng.uniform(3, 6, 3), max_tilt_degrees=90)
        tissues.append(Tissue(gyrus, (grey + rng.uniform(-0.06, 0.06),)))
    fluid = draw_blob(rng, (side * 4, -3, 6), (3, 14, 3), jitter_mm=1)
    tail = draw_blob(rng, (side * 1, -8, 1), (5, 13, 5), jitter_mm=1, bumpiness=0.08)
    head = draw_blob(rng, (0, 6, -1), (8, 9, 7), jitter_mm=1, bumpiness=0.08)
    return [
        *tissues,
        Tissue(fluid, (0.3,)),
        Tissue(tail, (grey,), label=2),
        Tissue(head, (grey + 0.05,), label=1),
    ]


def draw_mr(rng: np.random.Generator, case: int) -> Phantom:
    """Draws an MR of a part of a brain: int16, about 1.2 mm, zero outside of it.

    Scale and bias field differ from case to case. Of every four cases, the first is
    oriented RAS, the second RAS and tilted, the third LPS, the fourth LPS and tilted.
    """
    spacing_mm = rng.uniform(1.1, 1.3, 3)
    shape = rng.integers((38, 46, 34), (43, 51, 39))
    tilted, flipped = case % 2 == 1, case % 4 >= 2
    tilt_degrees = rng.choice((-1, 1), 3) * rng.uniform(6, 16, 3) * tilted
    affine = phantoms.draw_affine(
        rng,
        shape,
        spacing_mm,
        tilt_degrees=tilt_degrees,
        flips=(-1, -1, 1) if flipped else (1, 1, 1),
    )
    signal, labels = phantoms.scan(_draw_mr_anatomy(rng), shape, affine)
    points = phantoms.voxel_points(shape, affine)
    bias = np.exp(phantoms.draw_waves(rng, wavelength=90, amplitude=0.18)(points))
    texture = 1 + phantoms.draw_waves(rng, wavelength=8, amplitude=0.04)(points)
    noisy = phantoms.apply_rician_noise(signal[..., 0] * bias * texture, rng, 0.06)
    brain = signal[..., 0] > 0
    scale = np.exp(rng.uniform(np.log(150), np.log(3000)))
    return Phantom(np.rint(scale * noisy * brain).astype(np.int16), labels, affine)


def _draw_prostate_anatomy(rng: np.random.Generator) -> list[Tissue]:
    """Draws a pelvis, (T2, ADC); class 1 is the peripheral zone, 2 the transition zone.

    T2 is relative, ADC in 1e-6 mm²/s. The transition zone is at the front of the gland,
    so that the peripheral zone is a thin crescent behind it.
    """
    gland = draw_blob(rng, (0, 0, 0), (17, 12.5, 19), jitter_mm=2)
    middle = gland.centre_mm + gland.radii_mm * np.array((0, 0.35, 0.1), np.float32)
    core_mm = gland.radii_mm * np.array((0.75, 0.8, 0.85), np.float32)
    transition = draw_blob(rng, middle, core_mm, jitter_mm=1, bumpiness=0.07)
    zone_t2, zone_adc = rng.uniform(0.42, 0.52), rng.uniform(1150, 1300)
    tissues = [
        Tissue(phantoms.everywhere, (0.8, 300.0)),
        Tissue(draw_pillar(rng, (0, 0), (23, 21)), (0.3, 1000.0)),
        Tissue(draw_blob(rng, (0, 6, 32), (16, 13, 13)), (1.0, 2600.0)),
        Tissue(draw_pillar(rng, (0, -19), (8, 5)), (0.42, 1150.0)),
        Tissue(draw_blob(rng, (-22, -2, 0), (5, 12, 30)), (0.22, 1000.0)),
        Tissue(draw_blob(rng, (22, -2, 0), (5, 12, 30)), (0.22, 1000.0)),
        Tissue(gland, (rng.uniform(0.62, 0.78), rng.uniform(1500, 1700)), label=1),
        Tissue(_intersection(gland, transition), (zone_t2, zone_adc), label=2),
    ]
    for _ in range(rng.integers(5, 9)):
        centre = transition.centre_mm + rng.uniform(-9, 9, 3)
        nodule = draw_blob(rng, centre, rng.uniform(2, 5, 3))
        signals = (zone_t2 + rng.uniform(-0.15, 0.2), zone_adc + rng.uniform(-250, 250))
        shape = _intersection(gland, _intersection(transition, nodule))
        tissues.append(Tissue(shape, signals, label=2))
    return tissues


def draw_prostate(rng: np.random.Generator, case: int) -> Phantom:
    """Draws T2 and ADC of a pelvis in one file: float32, slices of about 3.6 mm."""
    del case  # every pelvis is axial
    in_plane = rng.uniform(0.76, 0.86)
    shape = _draw_shape(rng, (58, 54, 16), (65, 61, 20))
    affine = phantoms.draw_affine(rng, shape, (in_plane, in_plane, 3.6))
    signal, labels = phantoms.scan(_draw_prostate_anatomy(rng), shape, affine)
    points = phantoms.voxel_points(shape, affine)
    bias = np.exp(phantoms.draw_waves(rng, wavelength=110, amplitude=0.15)(points))
    t2 = phantoms.apply_rician_noise(signal[..., 0] * bias, rng, 0.06)
    noise = 180 * phantoms.smooth_in_plane(rng.normal(size=shape))
    adc = np.maximum(signal[..., 1] + noise, 0)
    scale = np.exp(rng.uniform(np.log(200), np.log(900)))
    image = np.stack([scale * t2, adc], axis=-1).astype(np.float32)
    return Phantom(image, labels, affine)


DOMAINS = {
    "Task01_PhantomCT": PhantomDomain(
        name="PhantomCT",
        description="Synthetic CT of a trunk: one organ and a similar distractor",
        modalities=("CT",),
        labels=("background", "organ"),
        draw=draw_ct,
    ),
    "Task02_PhantomMR": PhantomDomain(
        name="PhantomMR",
        description="Synthetic MR of a part of a brain: two parts of one organ",
        modalities=("MRI",),
        labels=("background", "head", "tail"),
        draw=draw_mr,
    ),
    "Task03_PhantomProstate": PhantomDomain(
        name="PhantomProstate",
        description="Synthetic T2 and ADC of a pelvis: two zones of the prostate",
        modalities=("T2", "ADC"),
        labels=("background", "PZ", "TZ"),
        draw=draw_prostate,
    ),
}
