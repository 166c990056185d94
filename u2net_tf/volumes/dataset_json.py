"""The content of `dataset.json`, as the MSD and nnU-Net (version 1 and 2) write it.

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
_LABELS = f'{_NUMBERED} or, as nnU-Net 2 has it, {{"name": 0}}'
_ROW_BY_NAME = '{"images": ["imagesTr/x_0000.nii.gz"], "label": "labelsTr/x.nii.gz"}'
_ROW = '{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}'
_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Row:
    """One case, as it is listed.

    Attributes:
      images: path of the image, or of one file per modality.
      label: path of the label map.
      name: of the case; "" where it is that of the image.
    """

    images: tuple[str, ...]
    label: str
    name: str = ""


def read_modalities(path: pathlib.Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Names of the channels, in their order.

    Args:
      path: `dataset.json`, for error messages.
      content: of it.

    Raises:
      InputError: if they are not numbered from 0, or a name is missing or stands
        twice.
    """
    given = [name for name in ("modality", "channel_names") if name in content]
    field = given[0] if given else "modality"
    if len(given) > 1 and content["modality"] != content["channel_names"]:
        raise InputError(
            f"{path}: 'channel_names'",
            expected="the names of 'modality', or only one of the two",
            received=repr(content["channel_names"]),
        )
    value = content.get(field)
    where = f"{path}: {field!r}"
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=_NUMBERED, received=repr(value))
    names = _numbered(where, value)
    if sorted(names) != list(range(len(names))):
        raise InputError(where, expected="keys 0, 1, …", received=sorted(names))
    stripped = [name.strip() for name in names.values()]
    if len(set(stripped)) < len(stripped):
        twice = sorted({name for name in stripped if stripped.count(name) > 1})
        raise InputError(
            where,
            expected="a name of its own for each modality",
            received=f"several of the name {first_few(twice)}",
        )
    return tuple(names[number] for number in sorted(names))


def read_labels(path: pathlib.Path, content: dict[str, Any]) -> dict[int, str]:
    """Raw value -> name, in ascending order.

    Args:
      path: `dataset.json`, for error messages.
      content: of it.

    Raises:
      InputError: if a value or name is none or stands twice, if there are not two
        classes, if a value is negative, if "background" is not the name of 0, or if
        there are regions or a label to ignore, which are not supported.
    """
    value = content.get("labels")
    where = f"{path}: 'labels'"
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=_LABELS, received=repr(value))
    _refuse_regions(path, content)
    pairs = _label_pairs(where, value)
    labels = dict(sorted(pairs))
    if len(labels) < len(pairs):
        values = [item for item, _ in pairs]
        twice = sorted({item for item in values if values.count(item) > 1})
        raise InputError(
            where,
            expected="each value once",
            received=f"several names for {first_few(twice)}",
        )
    ignored = [item for item, name in labels.items() if name.lower() == "ignore"]
    if ignored:
        raise InputError(
            where,
            expected="classes only",
            received=f"the label 'ignore' ({ignored[0]}), which in nnU-Net marks "
            "voxels that nobody annotated; training here needs a class for every voxel",
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
    """Value and name of each class, in the order of the file."""
    if any(map(_is_number, value)) and not all(map(_is_int, value.values())):
        return list(_numbered(where, value, expected=_LABELS).items())
    for name, item in value.items():
        _name(where, name)
        if not _is_int(item):
            raise InputError(where, expected=_LABELS, received=f"{name!r}: {item!r}")
        _require_range(where, item)
    return [(item, name) for name, item in value.items()]


def _is_background(name: str) -> bool:
    return re.sub(r"[\W_]", "", name).lower() == "background"


def _refuse_regions(path: pathlib.Path, content: dict[str, Any]) -> None:
    value = content["labels"]
    regions = [name for name, item in value.items() if isinstance(item, list)]
    if regions or "regions_class_order" in content:
        shown = f"{first_few(regions)}: " if regions else ""
        raise InputError(
            f"{path}: 'labels'",
            expected="one value per class",
            received=f"{shown}regions, which in nnU-Net are unions of values that may "
            "overlap; here a voxel belongs to one class",
            hint="List the values of the label maps; `merge_labels` joins values to "
            "one class",
        )


def read_rows(path: pathlib.Path, content: dict[str, Any]) -> list[Row] | None:
    """The cases that are listed.

    Args:
      path: `dataset.json`, for error messages.
      content: of it.

    Returns:
      None where the cases are those of the folder, as in nnU-Net 2.

    Raises:
      InputError: if there is another list than one of such paths.
    """
    if "dataset" in content and "training" not in content:
        # nnU-Net 2 by name; the rest is that of its version 1.
        where, named = f"{path}: 'dataset'", content["dataset"]
        expected = f'an object such as {{"x": {_ROW_BY_NAME}}}'
        if not isinstance(named, dict) or not named:
            raise InputError(where, expected=expected, received=repr(named))
        for name in named:
            try:
                require_folder_name(name)
            except InputError as error:
                raise error.within(where) from None
        return [
            _row(where, expected, row, "images", name) for name, row in named.items()
        ]
    if "training" not in content and "file_ending" in content:
        return None
    rows = content.get("training")
    where, expected = f"{path}: 'training'", f"a list of {_ROW}"
    if not isinstance(rows, list) or not rows:
        received = "an empty list" if rows == [] else repr(rows)
        raise InputError(where, expected=expected, received=received)
    return [_row(where, expected, row, "image") for row in rows]


def unused_fields(content: dict[str, Any]) -> list[str]:
    """Names of fields of the rows of 'training' that mean nothing here, sorted."""
    rows = content.get("training", [])
    return sorted({name for row in rows for name in row} - {"image", "label"})


def _row(where: str, expected: str, row: object, image: str, name: str = "") -> Row:
    if isinstance(row, dict):
        images, label = row.get(image), row.get("label")
        images = images if isinstance(images, list) else [images]
        if images and all(map(_is_path, [*images, label])):
            return Row(tuple(images), str(label), name)
    raise InputError(where, expected=expected, received=repr(row))


def read_file_ending(path: pathlib.Path, content: dict[str, Any]) -> str:
    """How the names of all files end, in nnU-Net 2.

    Raises:
      InputError: if no scan's name ends so.
    """
    value = content["file_ending"]
    if not isinstance(value, str) or value.lower() not in SCAN_SUFFIXES:
        is_picture = isinstance(value, str) and value.lower() in _PICTURES
        pictures = ": pictures, which are flat and carry no voxel size"
        raise InputError(
            f"{path}: 'file_ending'",
            expected=f"the ending of a volume: {', '.join(SCAN_SUFFIXES)}",
            received=f"{value!r}{pictures if is_picture else ''}",
        )
    return value


def count_difference(content: dict[str, Any], num_cases: int) -> str:
    """How 'numTraining' differs from the number of cases; "" if it does not."""
    given = content.get("numTraining", num_cases)
    if type(given) is int and given == num_cases:
        return ""
    return f"'numTraining' is {given!r:.40}, read {quantity(num_cases, 'case')}"


def _is_path(text: object) -> bool:
    return isinstance(text, str) and bool(text) and "\0" not in text


def _is_int(value: object) -> bool:
    # Not `isinstance`: true is no number.
    return type(value) is int


def _is_number(key: str) -> bool:
    # "01" would be the same number as "1", and so would " 1" and "1_0" be numbers.
    return re.fullmatch("0|-?[1-9][0-9]*", key) is not None


def _numbered(
    where: str, value: dict[str, Any], *, expected: str = _NUMBERED
) -> dict[int, str]:
    """Number -> name, of an object whose keys are numbers."""
    names = {}
    for key, name in value.items():
        if not _is_number(key):
            raise InputError(
                where,
                expected=f"{expected} with whole numbers",
                received=f"{key!r}: {name!r}",
            )
        _require_range(where, key)
        names[int(key)] = _name(where, name)
    return names


def _require_range(where: str, number: int | str) -> None:
    # Python refuses to convert numbers of thousands of digits.
    digits = len(str(number).lstrip("-"))
    if digits >= 20 or not MIN_LABEL <= int(number) <= MAX_LABEL:
        raise InputError(
            where,
            expected=f"whole numbers from {MIN_LABEL} to {MAX_LABEL}",
            received=number if digits < 20 else f"one of {digits} digits",
        )


def _name(where: str, name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(where, expected="a name for each", received=repr(name))
    return name
