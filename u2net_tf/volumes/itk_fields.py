"""Fields of NRRD and MetaImage headers that scale voxel values and lengths.

ITK ignores them: it treats lengths in µm as mm, and stored values as intensities.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np

from u2net_tf.errors import InputError

BLANKS = " \t\r"
# Larger numbers are not measurements, and their squares overflow.
_MAX_NUMBER = 1e30
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MM = {
    name: mm
    for mm, names in {
        1e-6: "nm,nanometer,nanometers",
        1e-3: "um,µm,μm,micron,microns,micrometer,micrometers",
        1.0: "mm,millimeter,millimeters",
        10.0: "cm,centimeter,centimeters",
        1e3: "m,meter,meters",
    }.items()
    for name in names.split(",")
}
# Placeholders for an unknown unit.
_NO_UNIT = ("", "?", "???", "none")
# Supported kinds of NRRD axes: spatial, or of values that are modalities.
_NRRD_KINDS = (
    *("domain", "space", "list", "vector", "scalar", "stub", "none", "???"),
    *("2-vector", "3-vector", "4-vector", "covariant-vector", "normal", "3-normal"),
)
# Fields of an axis that are redundant with its direction.
_NRRD_AXIS_FIELDS = ("spacings", "axis mins", "axis maxs")
_NRRD_QUANTIZATION = ("old min", "old max")


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Scaling of stored lengths and voxel values.

    Attributes:
      mm_per_unit: millimetres per unit of length.
      slope: scale factor of the voxel values.
      intercept: offset added after scaling.
    """

    mm_per_unit: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0


def field_error(
    path: pathlib.Path, field: str, expected: str, received: object
) -> InputError:
    """Returns an error that names the file and a field of its header."""
    return InputError(
        f"{path}: {field}",
        expected=expected,
        received="no value" if received is None else repr(received)[:200],
    )


def read_numbers(
    path: pathlib.Path, field: str, parts: list[str], count: int, text: str
) -> tuple[float, ...]:
    """Parses the numbers of a field.

    Raises:
      InputError: if they are not `count` finite numbers; it shows `text`.
    """
    if len(parts) == count and all(map(_NUMBER.fullmatch, parts)):
        values = tuple(map(float, parts))
        if max(map(abs, values)) < _MAX_NUMBER:
            return values
    raise field_error(path, field, f"{count} numbers", text)


def nrrd_directions(fields: dict[str, str]) -> list[str]:
    """Returns the direction of each axis as text, "none" for modalities."""
    return re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))


def read_nrrd_scaling(path: pathlib.Path, fields: dict[str, str]) -> Scaling:
    """Reads the scaling of an NRRD file.

    Args:
      path: the file, for errors.
      fields: header fields, name -> value.

    Raises:
      InputError: names a field with a value that is not supported.
    """
    for kind in fields.get("kinds", "").split():
        if kind.lower() not in _NRRD_KINDS:
            raise field_error(path, "kinds", "axes in space or of modalities", kind)
    for name in _NRRD_AXIS_FIELDS:
        if any(part.lower() != "nan" for part in fields.get(name, "").split()):
            raise field_error(
                path, name, "no value next to space directions", fields[name]
            )
    for name in _NRRD_QUANTIZATION:
        if fields.get(name, "nan").lower() != "nan":
            raise field_error(
                path, name, "intensities that are not quantized", fields[name]
            )
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    # One per axis; an axis of modalities may have any unit.
    axis_units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    directions = nrrd_directions(fields)
    units += [
        unit
        for unit, direction in zip(axis_units, directions, strict=False)
        if direction != "none"
    ]
    return Scaling(_mm_per_unit(path, "space units", units))


def read_meta_scaling(path: pathlib.Path, fields: dict[str, str]) -> Scaling:
    """Reads the scaling of a MetaImage file.

    Raises:
      InputError: names a field with a value that is not supported.
    """
    if fields.get("ObjectType", "Image") != "Image":
        raise field_error(path, "ObjectType", "Image", fields["ObjectType"])
    _check_center(path, fields)
    slope, intercept = (
        read_numbers(path, name, [text], 1, text)[0]
        for name, text in (
            (name, fields.get(name, default))
            for name, default in (
                ("ElementToIntensityFunctionSlope", "1"),
                ("ElementToIntensityFunctionOffset", "0"),
            )
        )
    )
    if slope == 0:
        raise field_error(
            path, "ElementToIntensityFunctionSlope", "a factor other than 0", slope
        )
    units = [fields.get("DistanceUnits", "")]
    return Scaling(_mm_per_unit(path, "DistanceUnits", units), slope, intercept)


def _check_center(path: pathlib.Path, fields: dict[str, str]) -> None:
    """Checks that the axes rotate about the origin, as ITK assumes."""
    name = "CenterOfRotation"
    if name not in fields:
        return
    text = fields[name]
    center = read_numbers(path, name, text.split(), 3, text)
    matrix = [float(part) for part in fields["TransformMatrix"].split(" ")]
    if any(center) and not np.array_equal(matrix, np.eye(3).ravel()):
        raise field_error(path, name, "0 0 0 for rotated axes", text)


def _mm_per_unit(path: pathlib.Path, field: str, units: list[str]) -> float:
    # Headers are decoded as Latin-1, but are often UTF-8.
    texts = {unit.encode("latin-1").decode("utf-8", "replace") for unit in units}
    stated = sorted(text for text in texts if text.lower() not in _NO_UNIT)
    if not stated:
        return 1.0
    # Only long names ignore case: "Microns" is a unit, but "MM" is ambiguous.
    lengths = {_MM.get(text.lower() if len(text) > 2 else text) for text in stated}
    length = lengths.pop()
    if lengths or length is None:
        raise field_error(
            path, field, "one unit of length (nm, um, mm, cm or m)", ", ".join(stated)
        )
    return length
