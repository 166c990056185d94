"""Detection of DICOM folders and files by the first bytes of the files."""

from __future__ import annotations

import os
import pathlib

# Index of the files on a medium, not an image.
_DIRECTORY = "DICOMDIR"


def is_dicom_folder(path: str | os.PathLike) -> bool:
    """Returns whether a path is a folder that contains DICOM files."""
    path = pathlib.Path(path)
    return os.path.isdir(path) and any(map(is_dicom_file, list_files(path)))


def is_dicom(path: str | os.PathLike) -> bool:
    """Returns whether a path is a DICOM file or a folder that contains some."""
    path = pathlib.Path(path)
    return is_dicom_file(path) if os.path.isfile(path) else is_dicom_folder(path)


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the files in a folder, sorted, without hidden ones and `DICOMDIR`.

    Broken links are among them.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if (path.is_file() or not os.path.exists(path))
        and path.name != _DIRECTORY
        and path.name[0] != "."
    )


def list_dicom_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the DICOM files in a folder, sorted."""
    return [path for path in list_files(folder) if is_dicom_file(path)]


def is_dicom_file(path: pathlib.Path) -> bool:
    """Returns whether a file begins like DICOM, with or without the preamble."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    # Older files begin with an element of group 2 or 8 and a low element number.
    return len(start) == 132 and start[:2] in (b"\2\0", b"\x08\0") and start[3] == 0
