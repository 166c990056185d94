"""What a folder to predict holds beside scans: it is named, and not predicted."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Sequence

from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.volumes.dicom_folder import is_dicom_folder
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES, is_scan_name
from u2net_tf.wording import first_few

# Below a folder that is none of a scan, these are searched for one to name.
_MAX_FOLDERS = 1000


def first_of_each(folder: pathlib.Path, names: Sequence[str]) -> dict[str, str]:
    """Name of a folder -> a scan somewhere below it, for those that have one."""
    found = {name: _first_below(folder / name) for name in names if name[0] != "."}
    return {n: str(path.relative_to(folder)) for n, path in found.items() if path}


def nothing_found(
    folder: pathlib.Path, others: Sequence[str], below: dict[str, str]
) -> InputError:
    """The error where a folder holds no scan."""
    hint = "Name scans that lie elsewhere in `input_list`"
    if below:
        first = next(iter(below.values()))
        hint = f"Folders below are not searched: name scans such as {first} in "
        hint += "`input_list`"
    return InputError(
        f"`input`: {folder}",
        expected=f"files ({', '.join(SCAN_SUFFIXES)}) or DICOM folders",
        received=first_few(others) or "an empty folder",
        hint=hint,
    )


def warn_of_others(
    folder: pathlib.Path, others: Sequence[str], below: dict[str, str]
) -> None:
    """Names what a folder holds beside scans."""
    if no_scans := [name for name in others if name not in below]:
        logging.warning("%s: left out, no scans: %s", folder, first_few(no_scans))
    if below:
        logging.warning(
            "%s: left out, in folders below, unless input_list names them: scans such "
            "as %s",
            folder,
            first_few(list(below.values())),
        )


def _first_below(folder: pathlib.Path) -> pathlib.Path | None:
    """A file or DICOM folder within a folder that looks like a scan; None without."""
    walk = itertools.islice(os.walk(folder), _MAX_FOLDERS)
    for place, folders, names in walk:
        folders.sort()
        for name in sorted(names):
            if is_scan_name(name) and name[0] != ".":
                return pathlib.Path(place, name)
        if is_dicom_folder(place):
            return pathlib.Path(place)
    return None
