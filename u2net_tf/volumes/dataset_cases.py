"""The cases in `dataset.json`, in the MSD and in nnU-Net, versions 1 and 2.

The MSD and nnU-Net 1 list them: `"training": [{"image": …, "label": …}]`. In nnU-Net 2,
they are the files in `labelsTr`, unless `dataset.json` lists them by name:
`"dataset": {"x": {"images": […], "label": …}}`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import require_folder_name
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES
from u2net_tf.wording import quantity

_ROW_BY_NAME = '{"images": ["imagesTr/x_0000.nii.gz"], "label": "labelsTr/x.nii.gz"}'
_ROW = '{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}'
_2D_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Row:
    """One case as listed in `dataset.json`.

    Attributes:
      images: path of the image, or of one file per modality.
      label: path of the label map.
      name: name of the case; "" if it is that of the image.
    """

    images: tuple[str, ...]
    label: str
    name: str = ""


def read_rows(path: pathlib.Path, content: dict[str, Any]) -> list[Row] | None:
    """Reads the list of cases.

    Args:
      path: `dataset.json`, for error messages.
      content: content of `dataset.json`.

    Returns:
      The cases; None if they are those of the folder, as in nnU-Net 2.

    Raises:
      InputError: if the list is invalid.
    """
    if "dataset" in content and "training" not in content:
        # Cases by name, as in nnU-Net 2.
        where, rows_by_name = f"{path}: 'dataset'", content["dataset"]
        expected = f'an object such as {{"x": {_ROW_BY_NAME}}}'
        if not isinstance(rows_by_name, dict) or not rows_by_name:
            raise InputError(where, expected=expected, received=repr(rows_by_name))
        for name in rows_by_name:
            try:
                require_folder_name(name)
            except InputError as error:
                raise error.within(where) from None
        return [
            _parse_row(where, expected, row, "images", name)
            for name, row in rows_by_name.items()
        ]
    if "training" not in content and "file_ending" in content:
        return None
    rows = content.get("training")
    where, expected = f"{path}: 'training'", f"a list of {_ROW}"
    if not isinstance(rows, list) or not rows:
        received = "an empty list" if rows == [] else repr(rows)
        raise InputError(where, expected=expected, received=received)
    return [_parse_row(where, expected, row, "image") for row in rows]


def unused_fields(content: dict[str, Any]) -> list[str]:
    """Returns the fields in rows of 'training' that are not used, sorted."""
    rows = content.get("training", [])
    return sorted({name for row in rows for name in row} - {"image", "label"})


def _parse_row(
    where: str, expected: str, row: object, image_key: str, name: str = ""
) -> Row:
    if isinstance(row, dict):
        images, label = row.get(image_key), row.get("label")
        images = images if isinstance(images, list) else [images]
        if images and all(map(_is_path, [*images, label])):
            return Row(tuple(images), str(label), name)
    raise InputError(where, expected=expected, received=repr(row))


def read_file_ending(path: pathlib.Path, content: dict[str, Any]) -> str:
    """Returns the suffix of all files, in nnU-Net 2.

    Raises:
      InputError: if it is not the suffix of a volume format.
    """
    value = content["file_ending"]
    if not isinstance(value, str) or value.lower() not in SCAN_SUFFIXES:
        is_2d = isinstance(value, str) and value.lower() in _2D_SUFFIXES
        reason = ": 2-D images, which do not store a voxel size"
        raise InputError(
            f"{path}: 'file_ending'",
            expected=f"the suffix of a volume: {', '.join(SCAN_SUFFIXES)}",
            received=f"{value!r}{reason if is_2d else ''}",
        )
    return value


def count_difference(content: dict[str, Any], num_cases: int) -> str:
    """Describes how 'numTraining' differs from the number of cases; "" if equal."""
    stated = content.get("numTraining", num_cases)
    if type(stated) is int and stated == num_cases:
        return ""
    return f"'numTraining' is {stated!r:.40}, read {quantity(num_cases, 'case')}"


def _is_path(text: object) -> bool:
    return isinstance(text, str) and bool(text) and "\0" not in text
