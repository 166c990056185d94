"""The content of `dataset.json` in the MSD and in nnU-Net, versions 1 and 2.

| | MSD and nnU-Net 1 | nnU-Net 2 |
|---|---|---|
| channels | `"modality": {"0": "T2"}` | `"channel_names": {"0": "T2"}` |
| classes | `"labels": {"1": "liver"}` | `"labels": {"liver": 1}` |
| cases | `"training": [{"image": …, "label": …}]` | the files in `labelsTr` |

nnU-Net 2 may list its cases by name:
`"dataset": {"x": {"images": […], "label": …}}`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import MAX_LABEL, MIN_LABEL, require_folder_name
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES
from u2net_tf.wording import first_few, quantity

_NUMBERED = 'an object such as {"0": "name"}'
_LABELS = f'{_NUMBERED} or, as in nnU-Net 2, {{"name": 0}}'
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


def read_modalities(path: pathlib.Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of the channels, in channel order.

    Args:
      path: `dataset.json`, for error messages.
      content: content of `dataset.json`.

    Raises:
      InputError: if they are not numbered from 0, or a name is missing or repeated.
    """
    present = [name for name in ("modality", "channel_names") if name in content]
    field = present[0] if present else "modality"
    if len(present) > 1 and content["modality"] != content["channel_names"]:
        raise InputError(
            f"{path}: 'channel_names'",
            expected="the names of 'modality', or only one of the two",
            received=repr(content["channel_names"]),
        )
    value = content.get(field)
    where = f"{path}: {field!r}"
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=_NUMBERED, received=repr(value))
    names = _names_by_number(where, value)
    if sorted(names) != list(range(len(names))):
        raise InputError(where, expected="keys 0, 1, …", received=sorted(names))
    stripped = [name.strip() for name in names.values()]
    if len(set(stripped)) < len(stripped):
        repeated = sorted({name for name in stripped if stripped.count(name) > 1})
        raise InputError(
            where,
            expected="a different name for each modality",
            received=f"several named {first_few(repeated)}",
        )
    return tuple(names[number] for number in sorted(names))


def read_labels(path: pathlib.Path, content: dict[str, Any]) -> dict[int, str]:
    """Returns raw value -> name, in ascending order.

    Args:
      path: `dataset.json`, for error messages.
      content: content of `dataset.json`.

    Raises:
      InputError: if a value or name is invalid or repeated, if there are fewer than two
        classes, if a value is negative, if a value other than 0 is named "background",
        or if there are regions or an ignore label, which are not supported.
    """
    value = content.get("labels")
    where = f"{path}: 'labels'"
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=_LABELS, received=repr(value))
    _reject_regions(path, content)
    pairs = _label_pairs(where, value)
    labels = dict(sorted(pairs))
    if len(labels) < len(pairs):
        values = [item for item, _ in pairs]
        repeated = sorted({item for item in values if values.count(item) > 1})
        raise InputError(
            where,
            expected="each value once",
            received=f"several names for {first_few(repeated)}",
        )
    ignored = [item for item, name in labels.items() if name.lower() == "ignore"]
    if ignored:
        raise InputError(
            where,
            expected="classes only",
            received=f"the label 'ignore' ({ignored[0]}), which in nnU-Net marks "
            "voxels without annotation; training here needs a class for every voxel",
            hint="Annotate them, or leave these cases and this label out",
        )
    if 0 not in labels or len(labels) < 2:
        raise InputError(
            where,
            expected="0 (background) and at least one other value",
            received=repr(labels),
        )
    for item, name in labels.items():
        if item < 0 or (item and _is_background(name)):
            raise InputError(
                where,
                expected="0 for the background and positive values for the classes",
                received=f"{item} for {name!r}",
            )
    return labels


def _label_pairs(where: str, value: dict[str, Any]) -> list[tuple[int, str]]:
    """Returns value and name of each class, in the order of the file."""
    if any(map(_is_number, value)) and not all(map(_is_int, value.values())):
        return list(_names_by_number(where, value, expected=_LABELS).items())
    for name, item in value.items():
        _require_name(where, name)
        if not _is_int(item):
            raise InputError(where, expected=_LABELS, received=f"{name!r}: {item!r}")
        _require_range(where, item)
    return [(item, name) for name, item in value.items()]


def _is_background(name: str) -> bool:
    return re.sub(r"[\W_]", "", name).lower() == "background"


def _reject_regions(path: pathlib.Path, content: dict[str, Any]) -> None:
    value = content["labels"]
    regions = [name for name, item in value.items() if isinstance(item, list)]
    if regions or "regions_class_order" in content:
        shown = f"{first_few(regions)}: " if regions else ""
        raise InputError(
            f"{path}: 'labels'",
            expected="one value per class",
            received=f"{shown}regions, which in nnU-Net are unions of values that may "
            "overlap; here a voxel belongs to one class",
            hint="List the values of the label maps; `merge_labels` merges values into "
            "one class",
        )


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


def _is_int(value: object) -> bool:
    # Not `isinstance`, which accepts true.
    return type(value) is int


def _is_number(key: str) -> bool:
    # Stricter than `int`, which also accepts "01", " 1" and "1_0".
    return re.fullmatch("0|-?[1-9][0-9]*", key) is not None


def _names_by_number(
    where: str, value: dict[str, Any], *, expected: str = _NUMBERED
) -> dict[int, str]:
    """Returns number -> name, from an object whose keys are numbers."""
    names = {}
    for key, name in value.items():
        if not _is_number(key):
            raise InputError(
                where,
                expected=f"{expected} with integers",
                received=f"{key!r}: {name!r}",
            )
        _require_range(where, key)
        names[int(key)] = _require_name(where, name)
    return names


def _require_range(where: str, number: int | str) -> None:
    # Python refuses to convert numbers of thousands of digits.
    digits = len(str(number).lstrip("-"))
    if digits >= 20 or not MIN_LABEL <= int(number) <= MAX_LABEL:
        raise InputError(
            where,
            expected=f"integers from {MIN_LABEL} to {MAX_LABEL}",
            received=number if digits < 20 else f"a number of {digits} digits",
        )


def _require_name(where: str, name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(where, expected="a printable name", received=repr(name))
    return name
