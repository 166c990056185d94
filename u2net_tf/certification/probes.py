"""Fixed patches for comparing logits, identical in all versions and on all machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Shape = Sequence[int]


def make_probes(
    pools: tuple[int, int, int], num_modalities: int
) -> dict[str, np.ndarray]:
    """Returns the probe patches of a domain, by name.

    Args:
      pools: number of times that the network halves z, y, x.
      num_modalities: number of modalities of the domain.

    Returns:
      Name -> patch of shape (1, D, H, W, M), float32, with 2 · 2**pools voxels along
      each axis.
    """
    shape = (1, *(2 * 2**number for number in pools), num_modalities)
    kinds: dict[str, Callable[[Shape], np.ndarray]] = {
        "noise": _noise,
        "noise beside zeros": _noise_beside_zeros,
        "ramps": _ramps,
    }
    return {name: make(shape).astype(np.float32) for name, make in kinds.items()}


def _noise(shape: Shape, seed: int = 0) -> np.ndarray:
    """Returns uniform noise of mean 0 and variance 1.

    It is computed from the raw bits of a generator: NumPy keeps these stable, but not
    the distributions.
    """
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape))) >> np.uint64(40)
    uniform = (bits.astype(np.float64) + 0.5) / 2**24
    return ((uniform - 0.5) * np.sqrt(12.0)).reshape(shape)


def _noise_beside_zeros(shape: Shape) -> np.ndarray:
    """Returns noise in one half and zeros in the other, as at the border of a scan."""
    patch = _noise(shape, seed=1)
    patch[:, : shape[1] // 2] = 0
    return patch


def _ramps(shape: Shape) -> np.ndarray:
    """Returns linear ramps, steepest along x, with a different slope per modality."""
    _, depth, height, width, num_modalities = shape
    z, y, x, modality = np.ogrid[:depth, :height, :width, :num_modalities]
    rise = z / depth + 2 * y / height + 4 * x / width
    return (rise * (modality + 1) / num_modalities - 1)[None]
