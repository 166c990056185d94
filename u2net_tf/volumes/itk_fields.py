"""Fields of NRRD and MetaImage headers that change what voxels and lengths mean.

ITK passes over them: lengths in µm count as mm, and stored values as intensities.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np

from u2net_tf.errors import InputError

BLANKS = " \t\r"
# Beyond it nothing is measured, and squares overflow.
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
# What stands where the unit is not known.
_NO_UNIT = ("", "?", "???", "none")
# What an axis of an NRRD file may be: of space, or of values that are modalities.
_NRRD_KINDS = (
    *("domain", "space", "list", "vector", "scalar", "stub", "none", "???"),
    *("2-vector", "3-vector", "4-vector", "covariant-vector", "normal", "3-normal"),
)
# Places of an axis that its direction gives already.
_NRRD_PLACES = ("spacings", "axis mins", "axis maxs")
_NRRD_QUANTIZATION = ("old min", "old max")


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What stored numbers mean.

    Attributes:
      mm_per_unit: millimetres per unit of length.
      slope: factor of the voxels.
      intercept: added after that.
    """

    mm_per_unit: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0


def field_error(
    path: pathlib.Path, field: str, expected: str, received: object
) -> InputError:
    """An error that names the file and a field of its header."""
    return InputError(
        f"{path}: {field}",
        expected=expected,
        received="no value" if received is None else repr(received)[:200],
    )


def read_numbers(
    path: pathlib.Path, field: str, parts: list[str], count: int, text: str
) -> tuple[float, ...]:
    """The numbers of a field.

    Raises:
      InputError: if they are not this many finite ones; it shows `text`.
    """
    if len(parts) == count and all(map(_NUMBER.fullmatch, parts)):
        values = tuple(map(float, parts))
        if max(map(abs, values)) < _MAX_NUMBER:
            return values
    raise field_error(path, field, f"{count} numbers", text)


def nrrd_directions(fields: dict[str, str]) -> list[str]:
    """The direction of each axis as it is written, "none" for one of modalities."""
    return re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))


def read_nrrd_meaning(path: pathlib.Path, fields: dict[str, str]) -> Meaning:
    """What the numbers of an NRRD file mean.

    Args:
      path: the file, for errors.
      fields: name -> value of its header.

    Raises:
      InputError: names a field that gives them a meaning that is not read here.
    """
    for kind in fields.get("kinds", "").split():
        if kind.lower() not in _NRRD_KINDS:
            raise field_error(path, "kinds", "axes of space or of modalities", kind)
    for name in _NRRD_PLACES:
        if any(part.lower() != "nan" for part in fields.get(name, "").split()):
            raise field_error(
                path, name, "no value beside space directions", fields[name]
            )
    for name in _NRRD_QUANTIZATION:
        if fields.get(name, "nan").lower() != "nan":
            raise field_error(
                path, name, "intensities that are not quantized", fields[name]
            )
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    # Per axis, and that of modalities may have any.
    of_axes = re.findall(r'"([^"]*)"', fields.get("units", ""))
    directions = nrrd_directions(fields)
    units += [
        unit
        for unit, direction in zip(of_axes, directions, strict=False)
        if direction != "none"
    ]
    return Meaning(_mm_per_unit(path, "space units", units))


def read_meta_meaning(path: pathlib.Path, fields: dict[str, str]) -> Meaning:
    """The same of a MetaImage file.

    Raises:
      InputError: names a field that gives them a meaning that is not read here.
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
    return Meaning(_mm_per_unit(path, "DistanceUnits", units), slope, intercept)


def _check_center(path: pathlib.Path, fields: dict[str, str]) -> None:
    """Checks that the axes turn about the origin, as ITK has them."""
    name = "CenterOfRotation"
    if name not in fields:
        return
    text = fields[name]
    center = read_numbers(path, name, text.split(), 3, text)
    matrix = [float(part) for part in fields["TransformMatrix"].split(" ")]
    if any(center) and not np.array_equal(matrix, np.eye(3).ravel()):
        raise field_error(path, name, "0 0 0 for axes that are turned", text)


def _mm_per_unit(path: pathlib.Path, field: str, units: list[str]) -> float:
    # Headers are read as Latin-1, and often UTF-8.
    texts = {unit.encode("latin-1").decode("utf-8", "replace") for unit in units}
    named = sorted(text for text in texts if text.lower() not in _NO_UNIT)
    if not named:
        return 1.0
    # "Microns" is one, and "MM" may be anything.
    lengths = {_MM.get(text.lower() if len(text) > 2 else text) for text in named}
    length = lengths.pop()
    if lengths or length is None:
        raise field_error(
            path, field, "one unit of length (nm, um, mm, cm or m)", ", ".join(named)
        )
    return length
