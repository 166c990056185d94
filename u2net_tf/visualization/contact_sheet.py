"""Draws a contact sheet of patches before and after augmentation."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.visualization import figures, slices

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.plan.domains import Domain

TITLES = ("axial, before", "after", "coronal, before", "after")
# The axis (z, y, x) along which each panel is a slice.
_AXES = (0, 0, 1, 1)


@dataclasses.dataclass(frozen=True)
class Patch:
    """One patch: image (z, y, x, C), labels (z, y, x) and the name of its case."""

    image: np.ndarray
    labels: np.ndarray
    case: str


def draw_sheet(
    pairs: Sequence[tuple[Patch, Patch]],
    domain: Domain,
    output: pathlib.Path,
    *,
    modality: int = 0,
) -> None:
    """Draws a row for each pair; `TITLES` lists its panels.

    The patient's right is on the left of each panel, and the front (of axial slices) or
    the head is at the top. Both patches of a pair have the grey levels of the first.

    Args:
      pairs: patches before and after augmentation; at least one pair.
      domain: domain of the patches.
      output: the PNG file.
      modality: channel of the image.
    """
    figure = figures.new_figure(12.0, 3.2 * len(pairs) + 0.3)
    axes = figure.subplots(len(pairs), 4, squeeze=False)
    size = pairs[0][0].labels.shape
    voxel_mm = [
        old * spacing / new
        for old, spacing, new in zip(
            domain.patch_size, domain.spacing_mm, size, strict=True
        )
    ]
    for row, pair in zip(axes, pairs, strict=True):
        image = pair[0].image[..., modality]
        low, high = np.percentile(image, (1, 99.5))
        for axis, patch, along in zip(row, (*pair, *pair), _AXES, strict=True):
            index = slices.choose_slice(patch.labels, along)
            _draw_slice(
                axis,
                np.take(patch.image[..., modality], index, along),
                np.take(patch.labels, index, along),
                (low, max(high, low + 1e-6)),
                voxel_mm[1 - along] / voxel_mm[2],
            )
            axis.set_xlabel(f"slice {index + 1} of {size[along]}")
        row[0].set_ylabel(pair[0].case, parse_math=False)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title)
    figures.save_figure(figure, output)


def _draw_slice(
    axis: Axes,
    image: np.ndarray,
    labels: np.ndarray,
    window: tuple[float, float],
    aspect: float,
) -> None:
    """Draws a slice whose rows run to the front or head, and columns to the right."""
    axis.imshow(
        image[::-1, ::-1], cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect
    )
    axis.set(xticks=[], yticks=[], frame_on=False)
    figures.draw_contours(axis, labels[::-1, ::-1])
