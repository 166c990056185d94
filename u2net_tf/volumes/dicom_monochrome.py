"""MONOCHROME1 files read without inversion.

MONOCHROME1 means that low values are displayed bright; it does not change the values.
GDCM inverts the stored values of such files: exactly for 8 and 16 bits; for others it
returns noise or an error.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

from u2net_tf.errors import InputError
from u2net_tf.volumes.dicom_headers import Header
from u2net_tf.volumes.dicom_planes import Plane

_KEYWORD = "PhotometricInterpretation"
_INVERTED, _NOT_INVERTED = "MONOCHROME1", "MONOCHROME2"


@contextlib.contextmanager
def as_stored(planes: list[Plane]) -> Iterator[list[Plane]]:
    """Yields planes whose files GDCM reads as stored, copying files if necessary.

    Args:
      planes: planes of one folder or of one file.

    Raises:
      InputError: any raised in the context; names a file of `planes`, not its copy.
    """
    if all(plane.header.text(_KEYWORD) != _INVERTED for plane in planes):
        yield planes
        return
    folder = str(planes[0].header.path.parent)
    with tempfile.TemporaryDirectory() as temporary:
        copies: dict[pathlib.Path, Header] = {}
        for plane in planes:
            path = plane.header.path
            if path not in copies:
                copies[path] = _monochrome2_copy(plane.header, pathlib.Path(temporary))
        try:
            yield [
                dataclasses.replace(plane, header=copies[plane.header.path])
                for plane in planes
            ]
        except InputError as error:
            raise InputError(
                error.where.replace(temporary, folder),
                expected=error.expected,
                received=str(error.received).replace(temporary, folder),
                hint=error.hint,
            ) from error


def _monochrome2_copy(header: Header, folder: pathlib.Path) -> Header:
    if header.is_deflated:
        raise header.error(_KEYWORD, f"{_NOT_INVERTED} in a deflated file", _INVERTED)
    content = bytearray(header.path.read_bytes())
    start = content.index(_INVERTED.encode(), header.value_offset(_KEYWORD))
    content[start : start + len(_NOT_INVERTED)] = _NOT_INVERTED.encode()
    result = copy.copy(header)
    result.path = folder / header.path.name
    result.path.write_bytes(content)
    return result
