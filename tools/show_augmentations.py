"""Draws a contact sheet: patches of a domain before and after augmentation.

    python -m tools.show_augmentations --data_dir=shards --domain=Task01 \
        --rotation_probability=1 --elastic_probability=1 --output=sheet.png

Takes the flags of the augmentation that `u2net_tf.train` has; without one of them only
mirroring is left. Each row is a patch around foreground, as the network would get it,
in the axial and the coronal slice with most foreground, in millimetres, and with the
outlines of its labels. Needs matplotlib.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from tools import pictures
from u2net_tf import command, command_flags, machine
from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.data import RESIZE_METHODS, DataConfig, SamplingConfig
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest

TITLES = ("axial, before", "after", "coronal, before", "after")
# The axis that each picture looks along.
_AXES = (0, 0, 1, 1)


@dataclasses.dataclass(frozen=True)
class Patch:
    """One patch: image (z, y, x, C), labels (z, y, x) and the name of its case."""

    image: np.ndarray
    labels: np.ndarray
    case: str


def define_flags() -> None:
    """Defines the flags of this command, those of the augmentation among them."""
    flags.DEFINE_string("data_dir", None, "Folder that convert wrote.", required=True)
    flags.DEFINE_string("domain", None, "The domain to show.", required=True)
    flags.DEFINE_string("output", None, "The picture to write, a PNG.", required=True)
    flags.DEFINE_integer("num_patches", 6, "Rows of the sheet.", lower_bound=1)
    flags.DEFINE_integer("modality", 0, "The modality to show.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the patches.", lower_bound=0)
    flags.DEFINE_float(
        "mirror_probability",
        0.3,
        "Of mirroring along each axis.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_list(
        "patch_size", [], "The network's patch z,y,x, voxels; the plan's if empty."
    )
    flags.DEFINE_enum(
        "resize_method", "linear", RESIZE_METHODS, "How images are interpolated."
    )
    command_flags.define(AugmentationConfig)


def main(argv: Sequence[str]) -> None:
    """Draws the sheet that the flags ask for."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    output = pathlib.Path(values.output)
    pictures.check_output(output)
    patch_size = command_flags.triple(values["patch_size"], least=1)
    augmentation = command_flags.read(AugmentationConfig)
    machine.import_tensorflow()
    from u2net_tf.shards.manifest import load_converted

    sampling = SamplingConfig(
        oversample_foreground_fraction=1.0, mirror_probability=values.mirror_probability
    )
    plan, (manifest,) = load_converted(values.data_dir, [values.domain])
    domain = plan.domains[0]
    if values.modality >= domain.num_modalities:
        raise command.InputError(
            "`modality`",
            expected=f"at most {domain.num_modalities - 1} for {domain.name}",
            received=values.modality,
        )
    settings = DataConfig(
        data_dir=values.data_dir,
        batch_size=1,
        patch_size=patch_size,
        resize_method=values.resize_method,
        sampling=sampling,
        augmentation=augmentation,
        seed=values.seed,
    )
    pairs = take_pairs(domain, manifest, settings, count=values.num_patches)
    draw_sheet(pairs, domain, output, modality=values.modality)
    patches = quantity(values.num_patches, "patch", "patches")
    print(f"{values.output}: drew {patches} of {domain.name}")


def take_pairs(
    domain: Domain, manifest: Manifest, settings: DataConfig, *, count: int
) -> list[tuple[Patch, Patch]]:
    """The first patches without and with what the settings do to them.

    Args:
        domain: of the patches.
        manifest: of its shards.
        settings: of the augmented ones.
        count: how many.
    """
    from u2net_tf.input.pipeline import domain_dataset

    still = settings.with_changes(mirror_probability=0.0, **AugmentationConfig().flat())
    before, after = (
        itertools.islice(
            domain_dataset(domain, manifest, chosen).as_numpy_iterator(), count
        )
        for chosen in (still, settings)
    )
    return [
        (_first(one), _first(other)) for one, other in zip(before, after, strict=True)
    ]


def _first(batch: dict[str, np.ndarray]) -> Patch:
    return Patch(batch["image"][0], batch["labels"][0], batch["case"][0].decode())


def draw_sheet(
    pairs: Sequence[tuple[Patch, Patch]],
    domain: Domain,
    output: pathlib.Path,
    *,
    modality: int = 0,
) -> None:
    """Draws a row for each pair; see `TITLES` for its pictures.

    The patient's right is on the left of each picture, and the front (of an axial
    slice) or the head on top. Both patches of a pair have the greys of the first.

    Args:
        pairs: patches before and after; at least one.
        domain: that they are of.
        output: the PNG file.
        modality: which channel of the image.
    """
    import numpy as np

    figure = pictures.new_figure(12.0, 3.2 * len(pairs) + 0.3)
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
            index = _busiest(patch.labels, along)
            _draw_slice(
                axis,
                np.take(patch.image[..., modality], index, along),
                np.take(patch.labels, index, along),
                (low, max(high, low + 1e-6)),
                voxel_mm[1 - along] / voxel_mm[2],
            )
            axis.set_xlabel(f"slice {index + 1} of {size[along]}")
        row[0].set_ylabel(pair[0].case)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title)
    pictures.save_figure(figure, output)


def _busiest(labels: np.ndarray, along: int) -> int:
    """The slice along an axis with most foreground; the middle one if all is empty."""
    others = tuple(axis for axis in range(3) if axis != along)
    areas = (labels > 0).sum(axis=others)
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def _draw_slice(
    axis: Axes,
    image: np.ndarray,
    labels: np.ndarray,
    window: tuple[float, float],
    aspect: float,
) -> None:
    """Draws a slice; rows run to the front or head and columns to the right."""
    axis.imshow(
        image[::-1, ::-1], cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect
    )
    axis.set(xticks=[], yticks=[], frame_on=False)
    pictures.draw_contours(axis, labels[::-1, ::-1])


def run() -> None:
    """Entry point: parses the flags and calls `main`."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
