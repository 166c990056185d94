"""Modalities and labels in `dataset.json`, in the MSD and in nnU-Net.

| | MSD and nnU-Net 1 | nnU-Net 2 |
|---|---|---|
| channels | `"modality": {"0": "T2"}` | `"channel_names": {"0": "T2"}` |
| classes | `"labels": {"1": "liver"}` | `"labels": {"liver": 1}` |

In nnU-Net 2, two kinds of entries of `labels` are not classes: `"ignore": 3` is that of
voxels without annotation, and `"whole": [1, 2]` is a region, a union of values.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from u2net_tf.errors import InputError
from u2net_tf.plan.labels import MAX_LABEL, MIN_LABEL
from u2net_tf.wording import first_few

_NUMBERED = 'an object such as {"0": "name"}'
_LABELS = f'{_NUMBERED} or, as in nnU-Net 2, {{"name": 0}}'
_REGION_VALUES = "a list of values of foreground classes, each once"


@dataclasses.dataclass(frozen=True)
class DatasetLabels:
    """The field 'labels' of `dataset.json`.

    Attributes:
      names: value -> name of a class, in ascending order, including 0.
      ignore_label: value of voxels without annotation; None if there is none.
      regions: name -> values of a union of classes, in ascending order.
    """

    names: dict[int, str]
    ignore_label: int | None
    regions: dict[str, tuple[int, ...]]


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


def read_labels(path: pathlib.Path, content: dict[str, Any]) -> DatasetLabels:
    """Returns classes, ignore label and regions.

    A value that belongs to regions only becomes a class, named "label" and the value.

    Args:
      path: `dataset.json`, for error messages.
      content: content of `dataset.json`.

    Raises:
      InputError: if a value or name is invalid or repeated, if there are fewer than two
        classes, if a value of a class is negative, if a region contains the background
        or the ignore label, or if a value other than 0 is named "background".
    """
    value = content.get("labels")
    where = f"{path}: 'labels'"
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=_LABELS, received=repr(value))
    pairs, regions = _label_pairs(where, value)
    named = dict(pairs)
    if len(named) < len(pairs):
        values = [item for item, _ in pairs]
        repeated = sorted({item for item in values if values.count(item) > 1})
        raise InputError(
            where,
            expected="each value once",
            received=f"several names for {first_few(repeated)}",
        )
    ignored = [item for item, name in pairs if _is_ignore(name)]
    if len(ignored) > 1:
        raise InputError(
            where,
            expected="one label 'ignore'",
            received=f"several: {first_few(ignored)}",
        )
    for item in ignored:
        del named[item]
    _check_regions(where, regions, ignored)
    for item in {item for values in regions.values() for item in values}:
        named.setdefault(item, f"label {item}")
    labels = dict(sorted(named.items()))
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
    return DatasetLabels(labels, ignored[0] if ignored else None, regions)


def _label_pairs(
    where: str, value: dict[str, Any]
) -> tuple[list[tuple[int, str]], dict[str, tuple[int, ...]]]:
    """Returns value and name of each label, in the order of the file, and the regions.

    A region with a single value is a label.
    """
    in_nnunet = all(_is_int(each) or isinstance(each, list) for each in value.values())
    if any(map(_is_number, value)) and not in_nnunet:
        return list(_names_by_number(where, value, expected=_LABELS).items()), {}
    pairs: list[tuple[int, str]] = []
    regions = {}
    for name, item in value.items():
        _require_name(where, name)
        values = item if isinstance(item, list) else [item]
        if not values or not all(map(_is_int, values)):
            raise InputError(where, expected=_LABELS, received=f"{name!r}: {item!r}")
        for each in values:
            _require_range(where, each)
        if len(values) == 1:
            pairs.append((values[0], name))
        else:
            regions[name] = tuple(sorted(values))
    return pairs, regions


def _check_regions(
    where: str, regions: Mapping[str, Sequence[int]], ignored: Sequence[int]
) -> None:
    for name, values in regions.items():
        if _is_ignore(name) or _is_background(name):
            raise InputError(
                f"{where}: {name!r}",
                expected="one value",
                received=first_few(values, limit=20),
            )
        distinct = set(values)
        if len(distinct) < len(values) or min(values) <= 0 or distinct & set(ignored):
            raise InputError(
                f"{where}: {name!r}",
                expected=_REGION_VALUES,
                received=first_few(values, limit=20),
            )


def unused_fields(content: dict[str, Any]) -> list[str]:
    """Describes the fields about labels that are not used."""
    if "regions_class_order" not in content:
        return []
    return [
        "'regions_class_order' is not used: predictions have the values of the label "
        "maps"
    ]


def _is_ignore(name: str) -> bool:
    return name.strip().lower() == "ignore"


def _is_background(name: str) -> bool:
    return re.sub(r"[\W_]", "", name).lower() == "background"


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
