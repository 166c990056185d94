"""Draws a sheet of pictures: references and predictions over the images.

    python -m tools.draw_overlays --image=raw/Task01/imagesTr \
        --reference=raw/Task01/labelsTr --prediction=predictions/Task01 \
        --output=overlays.png

Each of the three is a NIfTI file or a folder of them; in folders, files of the same
name belong together, and an image without a prediction is passed over. Repeat the
flags to put several domains on one sheet. Needs matplotlib.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from tools import pictures
from u2net_tf import command

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_SUFFIXES = (".nii", ".nii.gz")


@dataclasses.dataclass(frozen=True)
class OverlayCase:
    """The files of one row of the sheet; without a reference its column is empty."""

    name: str
    image_path: pathlib.Path
    reference_path: pathlib.Path | None
    prediction_path: pathlib.Path


def define_flags() -> None:
    """Defines the flags of this command."""
    each = "A file or a folder; repeat for more domains."
    flags.DEFINE_multi_string("image", None, f"Images. {each}", required=True)
    flags.DEFINE_multi_string("reference", [], f"Reference labels, or none. {each}")
    flags.DEFINE_multi_string("prediction", None, f"Predictions. {each}", required=True)
    flags.DEFINE_string("output", None, "The picture to write, a PNG.", required=True)
    flags.DEFINE_integer("cases", 4, "At most this many per --image.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Draws the sheet that the flags ask for."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    cases = find_cases(
        values.image, values.reference, values.prediction, max_cases=values.cases
    )
    draw_overlays(cases, pathlib.Path(values.output))
    print(f"{values.output}: drew {', '.join(case.name for case in cases)}")


def find_cases(
    images: Sequence[str],
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    max_cases: int,
) -> list[OverlayCase]:
    """Finds the files that belong together.

    Args:
        images: files or folders.
        references: as many, or none; an empty string stands for no reference.
        predictions: as many.
        max_cases: at most this many from each folder, in the order of their names.

    Returns:
        The cases, in the order of the arguments.

    Raises:
        InputError: if the numbers differ, or a folder gives no case.
        FileNotFoundError: if a file or folder is not there.
    """
    references = references or [""] * len(images)
    if not len(images) == len(references) == len(predictions):
        raise command.InputError(
            "`image`, `reference`, `prediction`",
            expected="each as often as the others, or no `reference`",
            received=f"{len(images)}, {len(references)}, {len(predictions)} of them",
        )
    cases = []
    for image, reference, prediction in zip(
        images, references, predictions, strict=True
    ):
        image_files = _list_files("image", image)
        prediction_files = _list_files("prediction", prediction)
        reference_files = _list_files("reference", reference) if reference else {}
        if pathlib.Path(image).is_file() and pathlib.Path(prediction).is_file():
            # Files named one by one belong together whatever they are called.
            name = next(iter(image_files))
            prediction_files = {name: pathlib.Path(prediction)}
            if reference and pathlib.Path(reference).is_file():
                reference_files = {name: pathlib.Path(reference)}
        names = [name for name in image_files if name in prediction_files]
        if not names:
            raise command.InputError(
                "`prediction`",
                expected=f"files named as in {image}",
                received=f"{prediction} with {sorted(prediction_files)[:3]}",
            )
        for name in names[:max_cases]:
            if reference and name not in reference_files:
                raise FileNotFoundError(f"`reference`: no {name} in {reference}")
            cases.append(
                OverlayCase(
                    name=name.removesuffix(".gz").removesuffix(".nii"),
                    image_path=image_files[name],
                    reference_path=reference_files.get(name),
                    prediction_path=prediction_files[name],
                )
            )
    return cases


def _list_files(flag: str, file_or_folder: str) -> dict[str, pathlib.Path]:
    """Returns the NIfTI files by name, in order; hidden ones are left out."""
    path = pathlib.Path(file_or_folder)
    if not path.exists():
        raise FileNotFoundError(f"`{flag}`: no such file or folder: {path}")
    files = [path] if path.is_file() else sorted(path.iterdir())
    found = {
        file.name: file
        for file in files
        if file.name.endswith(_SUFFIXES) and not file.name.startswith(".")
    }
    if not found:
        raise command.InputError(f"`{flag}`", expected=".nii or .nii.gz", received=path)
    return found


def draw_overlays(cases: Sequence[OverlayCase], output: pathlib.Path) -> None:
    """Draws a row per case: the image, the reference over it, the prediction over it.

    The slice is the axial one with most foreground in the reference (in the
    prediction where there is none). The patient's right is on the left of the
    picture and the front on top, as radiologists look at it.

    Args:
        cases: at least one.
        output: the PNG file.

    Raises:
        InputError: if there is no case, `output` is no PNG, or a label map does not
            lie on its image's grid.
        StoppedError: if matplotlib is missing.
    """
    pictures.check_output(output)
    if not cases:
        raise command.InputError("cases", expected="at least one", received="none")
    figure = pictures.new_figure(9.0, 3.0 * len(cases) + 0.4)
    axes = figure.subplots(len(cases), 3, squeeze=False)
    classes: set[int] = set()
    for row, case in zip(axes, cases, strict=True):
        classes |= _draw_case(row, case)
    for axis, title in zip(axes[0], ("image", "reference", "prediction"), strict=True):
        axis.set_title(title)
    if classes:
        from matplotlib.lines import Line2D

        lines = [
            Line2D([], [], color=pictures.class_colour(label), label=f"class {label}")
            for label in sorted(classes)
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    pictures.save_figure(figure, output)


def _draw_case(row: Sequence[Axes], case: OverlayCase) -> set[int]:
    """Draws one row and returns the classes in it."""
    import numpy as np

    image, affine = _read_canonical(case.image_path)
    image = image.reshape(*image.shape[:3], -1)[..., 0]
    overlays = []
    for path in (case.reference_path, case.prediction_path):
        if path is None:
            overlays.append(None)
            continue
        labels, label_affine = _read_canonical(path)
        if labels.shape != image.shape or not np.allclose(
            label_affine, affine, atol=1e-2
        ):
            raise command.InputError(
                path,
                expected=f"the grid of {case.image_path}, shape {image.shape} and "
                f"affine {affine.round(3).tolist()}",
                received=f"{labels.shape} and {label_affine.round(3).tolist()}",
            )
        overlays.append(np.rint(labels).astype(int))
    guide = overlays[0] if overlays[0] is not None else overlays[1]
    height = _choose_slice(guide)
    window = _choose_window(image[..., height], guide[..., height] > 0)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    classes: set[int] = set()
    for axis, labels in zip(row, (None, *overlays), strict=True):
        axis.imshow(
            _as_picture(image[..., height]),
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            aspect=spacing_mm[1] / spacing_mm[0],
        )
        # Room for outlines along the edge, which a frame would hide.
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set(xlim=(-1, image.shape[0]), ylim=(image.shape[1], -1))
        if labels is not None:
            classes |= pictures.draw_contours(axis, _as_picture(labels[..., height]))
    row[0].set_ylabel(f"{case.name}\nslice {height + 1} of {image.shape[2]}")
    if case.reference_path is None:
        row[1].set_xlabel("no reference")
    return classes


def _read_canonical(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads an array `[x, y, z, ...]` turned to run right, front, head; its affine."""
    import nibabel as nib
    import numpy as np

    try:
        volume = nib.as_closest_canonical(nib.load(path))
        array = np.asarray(volume.dataobj)
    except (nib.filebasedimages.ImageFileError, EOFError, OSError) as error:
        raise command.InputError(
            path, expected="a readable NIfTI file", received=error
        ) from error
    if array.ndim not in (3, 4):
        raise command.InputError(
            path, expected="3 or 4 axes", received=f"shape {array.shape}"
        )
    return array, volume.affine


def _choose_slice(labels: np.ndarray) -> int:
    """Returns the axial slice with most foreground; the middle one if all is empty."""
    areas = (labels > 0).sum(axis=(0, 1))
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def _choose_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Returns the grey values for black and white, from around the foreground.

    The air around a patient would otherwise take the greys that the organ needs.
    """
    import numpy as np

    box = []
    for axis in (0, 1):
        inside = np.flatnonzero(foreground.any(axis=1 - axis))
        if not inside.size:
            return _spread(image)
        margin = (inside[-1] - inside[0] + 1) // 4 + 1
        box.append(slice(max(inside[0] - margin, 0), inside[-1] + margin + 1))
    return _spread(image[tuple(box)])


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the 1st and 99th percentile, never equal; the air is kept out."""
    import numpy as np

    low, middle, high = np.percentile(values, (1, 50, 99))
    deviation = np.median(np.abs(values - middle))
    if deviation > 0:
        low = max(low, middle - 5 * deviation)
    return float(low), float(max(high, low + 1e-6))


def _as_picture(plane: np.ndarray) -> np.ndarray:
    """Turns `[x, y]`, to the right and front, into rows from front, columns from right.

    Row 0 is the top of the picture.
    """
    return plane[::-1, ::-1].T


def run() -> None:
    """Entry point: parses the flags and calls `main`."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
