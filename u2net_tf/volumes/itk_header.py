"""Headers of NRRD and MetaImage files, checked before ITK reads the voxels.

ITK replaces missing fields by defaults (1 mm, the axes of the patient), does not verify
the checksums of compressed NRRD files, and allocates whatever a header claims.
"""

from __future__ import annotations

import math
import pathlib
import re
import zlib

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes.itk_fields import (
    BLANKS,
    Scaling,
    field_error,
    nrrd_directions,
    read_meta_scaling,
    read_nrrd_scaling,
    read_numbers,
)
from u2net_tf.volumes.itk_voxels import StoredVoxels, check_voxels
from u2net_tf.volumes.memory import require_memory
from u2net_tf.volumes.nifti_header import is_invertible

# Headers are short text; a longer one means that the file is something else.
_MAX_HEADER_BYTES = 1 << 20
# float32, and a second copy when channels are stacked.
_BYTES_PER_VALUE = 8
_NRRD_BYTES = {
    name: size
    for size, names in {
        1: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
        2: "short,short int,signed short,signed short int,int16,int16_t,ushort,"
        "unsigned short,unsigned short int,uint16,uint16_t",
        4: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
        8: "longlong,long long,int64,int64_t,ulonglong,unsigned long long,uint64,"
        "uint64_t,double",
    }.items()
    for name in names.split(",")
}
_META_BYTES = {
    f"MET_{name}": size
    for name, size in {
        "CHAR": 1,
        "UCHAR": 1,
        "SHORT": 2,
        "USHORT": 2,
        "INT": 4,
        "UINT": 4,
        "LONG": 4,
        "ULONG": 4,
        "LONG_LONG": 8,
        "ULONG_LONG": 8,
        "FLOAT": 4,
        "DOUBLE": 8,
    }.items()
}
_NRRD_SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)


def check_file(
    path: pathlib.Path, max_memory_gb: float | None, *, with_voxels: bool = True
) -> Scaling:
    """Checks that a file states its geometry, and that all voxels are undamaged.

    Args:
      path: an NRRD or MetaImage file that includes its voxels.
      max_memory_gb: see `memory.require_memory`.
      with_voxels: whether to check the voxels as well as the header.

    Returns:
      Scaling of the lengths and values that ITK reads.

    Raises:
      InputError: names the file, and the field of its header.
    """
    if not path.is_file():
        raise InputError(path, expected="a file", received=files.what_is_at(path))
    with path.open("rb") as file:
        start = file.read(_MAX_HEADER_BYTES)
    is_nrrd = path.name.lower().endswith(".nrrd")
    content, scaling = (_read_nrrd if is_nrrd else _read_meta)(path, start)
    require_memory(
        path,
        content.num_bytes + content.num_values * _BYTES_PER_VALUE,
        content=f"{content.num_bytes:,} bytes of voxels",
        max_memory_gb=max_memory_gb,
    )
    if with_voxels:
        check_voxels(path, content)
    return scaling


def _read_nrrd(path: pathlib.Path, start: bytes) -> tuple[StoredVoxels, Scaling]:
    match = re.match(rb"NRRD000\d\r?\n(.*?\n)?\r?\n", start, re.DOTALL)
    if match is None:
        raise InputError(
            path, expected="the header of an NRRD file", received=repr(start[:20])
        )
    fields: dict[str, str] = {}
    for line in _lines(match[1] or b""):
        name, separator, value = line.partition(":")
        if line.startswith("#") or not separator or value.startswith("="):
            continue
        name = name.strip(BLANKS).lower()
        name = _NRRD_NAMES.get(name, name)
        if name in fields:
            raise field_error(path, name, "one value", "two")
        fields[name] = value.strip(BLANKS)
    for name in ("data file", "byte skip", "line skip"):
        if fields.get(name, "0") != "0":
            raise field_error(path, name, "voxels after the header", fields[name])
    space = fields.get("space", "")
    if space.lower() not in _NRRD_SPACES:
        raise field_error(path, "space", f"one of {', '.join(_NRRD_SPACES[:3])}", space)
    sizes = _sizes(path, "sizes", fields.get("sizes"))
    _check_nrrd_geometry(path, fields, len(sizes))
    item_bytes = _NRRD_BYTES.get(fields.get("type", "").lower())
    if item_bytes is None:
        raise field_error(path, "type", "a type of numbers", fields.get("type"))
    if item_bytes > 1 and fields.get("endian") not in ("little", "big"):
        raise field_error(path, "endian", "little or big", fields.get("endian"))
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise field_error(path, "encoding", "raw or gzip", fields.get("encoding"))
    bits = None if encoding == "raw" else zlib.MAX_WBITS + 16
    num_values = math.prod(sizes)
    voxels = StoredVoxels(match.end(), num_values, num_values * item_bytes, bits)
    return voxels, read_nrrd_scaling(path, fields)


def _check_nrrd_geometry(
    path: pathlib.Path, fields: dict[str, str], num_axes: int
) -> None:
    text = fields.get("space directions")
    vectors = nrrd_directions(fields)
    axes = [_vector(path, "space directions", v) for v in vectors if v != "none"]
    if len(vectors) != num_axes or len(axes) != 3:
        raise field_error(
            path, "space directions", "a direction for each of three axes", text
        )
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack(axes)
    if not is_invertible(affine):
        raise field_error(
            path, "space directions", "three directions that span a volume", text
        )
    _vector(path, "space origin", fields.get("space origin", ""))


def _lines(header: bytes) -> list[str]:
    """Splits at newlines only; `splitlines` also splits at other characters."""
    return header.decode("latin-1").rstrip("\n").split("\n")


def _vector(path: pathlib.Path, field: str, text: str) -> tuple[float, ...]:
    numbers = [part.strip(BLANKS) for part in text.strip("()").split(",")]
    return read_numbers(path, field, numbers, 3, text)


def _sizes(path: pathlib.Path, field: str, text: str | None) -> list[int]:
    parts = (text or "").split(" ")
    if len(parts) not in (3, 4) or not all(
        part.isascii() and part.isdecimal() and 0 < int(part) < 1 << 31
        for part in parts
    ):
        raise field_error(path, field, "positive sizes of three axes", text)
    return [int(part) for part in parts]


def _read_meta(path: pathlib.Path, start: bytes) -> tuple[StoredVoxels, Scaling]:
    match = re.match(rb"(.*?\n)ElementDataFile *= *([^\r\n]*)\r?\n", start, re.DOTALL)
    if match is None:
        raise InputError(
            path, expected="the header of a MetaImage file", received=repr(start[:20])
        )
    if match[2].strip() != b"LOCAL":
        raise field_error(path, "ElementDataFile", "LOCAL", match[2].decode("latin-1"))
    fields: dict[str, str] = {}
    for line in _lines(match[1]):
        name, separator, value = line.partition("=")
        name = name.strip(BLANKS)
        name = _META_NAMES.get(name, name)
        if not separator or name in fields:
            raise field_error(
                path, name[:80], "one value", None if not separator else "two"
            )
        fields[name] = value.strip(BLANKS)
    for name, expected in (("NDims", "3"), ("BinaryData", "True")):
        if fields.get(name) != expected:
            raise field_error(path, name, expected, fields.get(name))
    if "HeaderSize" in fields:
        raise field_error(
            path, "HeaderSize", "voxels after the header", fields["HeaderSize"]
        )
    sizes = _sizes(path, "DimSize", fields.get("DimSize"))
    _check_meta_geometry(path, fields)
    item_bytes = _META_BYTES.get(fields.get("ElementType", ""))
    if item_bytes is None:
        raise field_error(
            path, "ElementType", "a type of numbers", fields.get("ElementType")
        )
    channels = fields.get("ElementNumberOfChannels", "1")
    if not channels.isdecimal() or not 0 < int(channels) < 1 << 16:
        raise field_error(
            path, "ElementNumberOfChannels", "a positive number", channels
        )
    num_values = math.prod(sizes) * int(channels)
    if item_bytes > 1:
        _read_bool(path, fields, "ElementByteOrderMSB")
    available = path.stat().st_size - match.end()
    bits = zlib.MAX_WBITS if _is_compressed(path, fields, available) else None
    voxels = StoredVoxels(match.end(), num_values, num_values * item_bytes, bits)
    return voxels, read_meta_scaling(path, fields)


def _is_compressed(path: pathlib.Path, fields: dict[str, str], available: int) -> bool:
    """Returns whether voxels are compressed; checks that their size is then stated."""
    compressed = _read_bool(path, fields, "CompressedData", "False")
    # Without it ITK does not find the end of the voxels, and leaves some unset.
    if compressed and fields.get("CompressedDataSize") != str(available):
        raise field_error(
            path,
            "CompressedDataSize",
            f"{available}, the bytes after the header",
            fields.get("CompressedDataSize"),
        )
    return compressed


def _read_bool(
    path: pathlib.Path, fields: dict[str, str], name: str, default: str | None = None
) -> bool:
    text = fields.get(name, default)
    if text not in ("True", "False"):
        raise field_error(path, name, "True or False", text)
    return text == "True"


def _check_meta_geometry(path: pathlib.Path, fields: dict[str, str]) -> None:
    for name, count in (("ElementSpacing", 3), ("TransformMatrix", 9), ("Offset", 3)):
        text = fields.get(name, "")
        numbers = read_numbers(path, name, text.split(" "), count, text)
        if name == "ElementSpacing" and min(numbers) <= 0:
            raise field_error(path, name, "lengths above 0 mm", text)
        if name == "TransformMatrix":
            matrix = np.array(numbers).reshape(3, 3)
            if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):
                raise field_error(path, name, "perpendicular unit vectors", text)


# Aliases of the fields.
_NRRD_NAMES = {
    name.replace(" ", ""): name
    for name in (
        *("data file", "byte skip", "line skip", "axis mins", "axis maxs"),
        *("space units", "space directions", "space origin", "old min", "old max"),
    )
}
_META_NAMES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}
