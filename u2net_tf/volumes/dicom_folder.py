"""Which folders and files are DICOM, by the first bytes of the files."""

from __future__ import annotations

import os
import pathlib

# Lists the files of a disk, and is no image.
_DIRECTORY = "DICOMDIR"


def is_dicom_folder(path: str | os.PathLike) -> bool:
    """Whether this is a folder with DICOM files in it."""
    path = pathlib.Path(path)
    return os.path.isdir(path) and any(map(is_dicom_file, list_files(path)))


def is_dicom(path: str | os.PathLike) -> bool:
    """Whether this is a folder with DICOM files in it, or such a file itself."""
    path = pathlib.Path(path)
    return is_dicom_file(path) if os.path.isfile(path) else is_dicom_folder(path)


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder, sorted, without hidden ones and `DICOMDIR`."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name != _DIRECTORY and path.name[0] != "."
    )


def is_dicom_file(path: pathlib.Path) -> bool:
    """Whether a file begins as DICOM files do, with the preamble or without."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    # Older files begin with an element of group 2 or 8, whose number is small.
    return len(start) == 132 and start[:2] in (b"\2\0", b"\x08\0") and start[3] == 0
