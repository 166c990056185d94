"""Headers of NRRD and MetaImage files, checked before ITK reads the voxels.

ITK puts defaults (1 mm, the axes of the patient) in place of what a header lacks, does
not compare the checksums of compressed NRRD files, and allocates what a header claims.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import zlib

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes.memory import require_memory

# A header is text, and longer only if the file is something else.
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
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
_BLANKS = " \t\r"
# Beyond it nothing is measured, and squares overflow.
_MAX_NUMBER = 1e30
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class _Content:
    """What a header says of the bytes after it.

    Attributes:
      offset: of the first byte after the header.
      num_bytes: of the voxels, uncompressed.
      window_bits: of zlib, for compressed voxels; None for others.
    """

    offset: int
    num_bytes: int
    window_bits: int | None


def check_file(
    path: pathlib.Path, max_memory_gb: float | None, *, with_voxels: bool = True
) -> None:
    """Checks that a file states its geometry, and holds all voxels undamaged.

    Args:
      path: an NRRD or MetaImage file with its voxels in it.
      max_memory_gb: see `memory.require_memory`.
      with_voxels: whether to look beyond the header.

    Raises:
      InputError: names the file, and the field of its header.
    """
    if not path.is_file():
        raise InputError(path, expected="a file", received=files.what_is_at(path))
    with path.open("rb") as file:
        start = file.read(_MAX_HEADER_BYTES)
    is_nrrd = path.name.lower().endswith(".nrrd")
    content = (_read_nrrd if is_nrrd else _read_meta)(path, start)
    require_memory(
        path,
        content.num_bytes,
        content=f"{content.num_bytes} bytes of voxels",
        max_memory_gb=max_memory_gb,
    )
    if with_voxels:
        _check_voxels(path, content)


def _error(
    path: pathlib.Path, field: str, expected: str, received: object
) -> InputError:
    return InputError(
        f"{path}: {field}",
        expected=expected,
        received="no value" if received is None else repr(received)[:200],
    )


def _read_nrrd(path: pathlib.Path, start: bytes) -> _Content:
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
        name = name.strip(_BLANKS).lower().replace("datafile", "data file")
        if name in fields:
            raise _error(path, name, "one value", "two")
        fields[name] = value.strip(_BLANKS)
    for name in ("data file", "byte skip", "line skip", "byteskip", "lineskip"):
        if fields.get(name, "0") != "0":
            raise _error(path, name, "voxels after the header", fields[name])
    space = fields.get("space", "")
    if space.lower() not in _NRRD_SPACES:
        raise _error(path, "space", f"one of {', '.join(_NRRD_SPACES[:3])}", space)
    sizes = _sizes(path, "sizes", fields.get("sizes"))
    vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    axes = [_vector(path, "space directions", v) for v in vectors if v != "none"]
    if len(vectors) != len(sizes) or len(axes) != 3:
        raise _error(
            path,
            "space directions",
            "a direction for each of three axes",
            fields.get("space directions"),
        )
    _vector(path, "space origin", fields.get("space origin", ""))
    item_bytes = _NRRD_BYTES.get(fields.get("type", "").lower())
    if item_bytes is None:
        raise _error(path, "type", "a type of numbers", fields.get("type"))
    if item_bytes > 1 and fields.get("endian") not in ("little", "big"):
        raise _error(path, "endian", "little or big", fields.get("endian"))
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise _error(path, "encoding", "raw or gzip", fields.get("encoding"))
    bits = None if encoding == "raw" else zlib.MAX_WBITS + 16
    return _Content(match.end(), math.prod(sizes) * item_bytes, bits)


def _lines(header: bytes) -> list[str]:
    """Not `splitlines`, which takes other characters for ends of lines as well."""
    return header.decode("latin-1").rstrip("\n").split("\n")


def _vector(path: pathlib.Path, field: str, text: str) -> tuple[float, ...]:
    numbers = [part.strip(_BLANKS) for part in text.strip("()").split(",")]
    return _floats(path, field, numbers, 3, text)


def _floats(
    path: pathlib.Path, field: str, parts: list[str], count: int, text: str
) -> tuple[float, ...]:
    if len(parts) == count and all(map(_NUMBER.fullmatch, parts)):
        values = tuple(map(float, parts))
        if max(map(abs, values)) < _MAX_NUMBER:
            return values
    raise _error(path, field, f"{count} numbers", text)


def _sizes(path: pathlib.Path, field: str, text: str | None) -> list[int]:
    parts = (text or "").split(" ")
    if len(parts) not in (3, 4) or not all(
        part.isascii() and part.isdecimal() and 0 < int(part) < 1 << 31
        for part in parts
    ):
        raise _error(path, field, "positive numbers of voxels of three axes", text)
    return [int(part) for part in parts]


def _read_meta(path: pathlib.Path, start: bytes) -> _Content:
    match = re.match(rb"(.*?\n)ElementDataFile *= *([^\r\n]*)\r?\n", start, re.DOTALL)
    if match is None:
        raise InputError(
            path, expected="the header of a MetaImage file", received=repr(start[:20])
        )
    if match[2].strip() != b"LOCAL":
        raise _error(path, "ElementDataFile", "LOCAL", match[2].decode("latin-1"))
    fields: dict[str, str] = {}
    for line in _lines(match[1]):
        name, separator, value = line.partition("=")
        name = name.strip(_BLANKS)
        name = _META_NAMES.get(name, name)
        if not separator or name in fields:
            raise _error(path, name[:80], "one value", None if not separator else "two")
        fields[name] = value.strip(_BLANKS)
    for name, expected in (("NDims", "3"), ("BinaryData", "True")):
        if fields.get(name) != expected:
            raise _error(path, name, expected, fields.get(name))
    if "HeaderSize" in fields:
        raise _error(
            path, "HeaderSize", "voxels after the header", fields["HeaderSize"]
        )
    sizes = _sizes(path, "DimSize", fields.get("DimSize"))
    _check_meta_geometry(path, fields)
    item_bytes = _META_BYTES.get(fields.get("ElementType", ""))
    if item_bytes is None:
        raise _error(
            path, "ElementType", "a type of numbers", fields.get("ElementType")
        )
    channels = fields.get("ElementNumberOfChannels", "1")
    if not channels.isdecimal() or not 0 < int(channels) < 1 << 16:
        raise _error(path, "ElementNumberOfChannels", "a positive number", channels)
    num_bytes = math.prod(sizes) * item_bytes * int(channels)
    compressed = fields.get("CompressedData", "False")
    if compressed not in ("True", "False"):
        raise _error(path, "CompressedData", "True or False", compressed)
    available = str(path.stat().st_size - match.end())
    if fields.get("CompressedDataSize", available) != available:
        raise _error(
            path, "CompressedDataSize", available, fields["CompressedDataSize"]
        )
    bits = zlib.MAX_WBITS if compressed == "True" else None
    return _Content(match.end(), num_bytes, bits)


def _check_meta_geometry(path: pathlib.Path, fields: dict[str, str]) -> None:
    for name, count in (("ElementSpacing", 3), ("TransformMatrix", 9), ("Offset", 3)):
        text = fields.get(name, "")
        numbers = _floats(path, name, text.split(" "), count, text)
        if name == "ElementSpacing" and min(numbers) <= 0:
            raise _error(path, name, "lengths above 0 mm", text)
        if name == "TransformMatrix":
            matrix = np.array(numbers).reshape(3, 3)
            if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):
                raise _error(path, name, "perpendicular unit vectors", text)


# Other names of the same fields.
_META_NAMES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}


def _check_voxels(path: pathlib.Path, content: _Content) -> None:
    """Checks that the voxels are as many bytes as the header says, and undamaged."""
    received = path.stat().st_size - content.offset
    if content.window_bits is not None:
        received = _inflated_bytes(path, content)
    if received != content.num_bytes:
        raise InputError(
            path,
            expected=f"{content.num_bytes} bytes of voxels",
            received=f"{received} bytes",
        )


def _inflated_bytes(path: pathlib.Path, content: _Content) -> int:
    """How many bytes the compressed voxels have; their checksum is compared.

    At most one more than there should be.
    """
    inflater = zlib.decompressobj(content.window_bits or 0)
    total = 0
    with path.open("rb") as file:
        file.seek(content.offset)
        rest = b""
        while not inflater.eof and total <= content.num_bytes:
            rest = rest or file.read(_CHUNK_BYTES)
            try:
                piece = inflater.decompress(rest, _CHUNK_BYTES)
            except zlib.error as error:
                raise InputError(
                    path, expected="undamaged voxels", received=error
                ) from error
            rest = inflater.unconsumed_tail
            if not piece and not rest and not file.peek(1):
                raise InputError(
                    path,
                    expected=f"{content.num_bytes} bytes of voxels",
                    received=f"the end of the file after {total}",
                )
            total += len(piece)
        surplus = len(inflater.unused_data) + len(file.read(_CHUNK_BYTES))
    if inflater.eof and surplus:
        raise InputError(
            path,
            expected="the end of the file after the voxels",
            received=f"at least {surplus} more bytes",
        )
    return total
