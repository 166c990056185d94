"""MONOCHROME1, which says that low values are shown bright, and nothing of values.

GDCM inverts the stored values of such files: those of 8 and 16 bits exactly, of others
it makes noise or an error.
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
_INVERTED, _PLAIN = "MONOCHROME1", "MONOCHROME2"


@contextlib.contextmanager
def as_stored(planes: list[Plane]) -> Iterator[list[Plane]]:
    """Planes whose files GDCM reads as they are stored, in copies where it would not.

    Args:
      planes: of one folder, or of one file.

    Raises:
      InputError: names a file of `planes`, also if it is raised within the context.
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
                copies[path] = _plain_copy(plane.header, pathlib.Path(temporary))
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


def _plain_copy(header: Header, folder: pathlib.Path) -> Header:
    if header.is_deflated:
        raise header.error(_KEYWORD, f"{_PLAIN} in a deflated file", _INVERTED)
    content = bytearray(header.path.read_bytes())
    start = content.index(_INVERTED.encode(), header.value_offset(_KEYWORD))
    content[start : start + len(_PLAIN)] = _PLAIN.encode()
    result = copy.copy(header)
    result.path = folder / header.path.name
    result.path.write_bytes(content)
    return result
