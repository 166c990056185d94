"""Entries of an input folder that are not scans: they are listed and skipped."""

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

# Limit of subfolders that are searched for a scan to mention.
_MAX_FOLDERS = 1000


def find_scans_below(folder: pathlib.Path, names: Sequence[str]) -> dict[str, str]:
    """Returns name of a subfolder -> a scan somewhere below it, if there is one."""
    found = {name: _first_below(folder / name) for name in names if name[0] != "."}
    return {n: str(path.relative_to(folder)) for n, path in found.items() if path}


def no_scan_error(
    folder: pathlib.Path, others: Sequence[str], below: dict[str, str]
) -> InputError:
    """Returns the error for a folder without scans."""
    hint = "List scans in other folders in `input_list`"
    if below:
        first = next(iter(below.values()))
        hint = f"Subfolders are not searched: list scans such as {first} in "
        hint += "`input_list`"
    return InputError(
        f"`input`: {folder}",
        expected=f"files ({', '.join(SCAN_SUFFIXES)}) or DICOM folders",
        received=first_few(others) or "an empty folder",
        hint=hint,
    )


def warn_of_skipped(
    folder: pathlib.Path, others: Sequence[str], below: dict[str, str]
) -> None:
    """Lists the entries of a folder that are skipped."""
    if no_scans := [name for name in others if name not in below]:
        logging.warning(
            "%s: skipped entries that are not scans: %s", folder, first_few(no_scans)
        )
    if below:
        logging.warning(
            "%s: skipped scans in subfolders, such as %s; list them in input_list",
            folder,
            first_few(list(below.values())),
        )


def _first_below(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns a file or DICOM folder below a folder that looks like a scan, or None."""
    walk = itertools.islice(os.walk(folder), _MAX_FOLDERS)
    for place, folders, names in walk:
        folders.sort()
        for name in sorted(names):
            if is_scan_name(name) and name[0] != ".":
                return pathlib.Path(place, name)
        if is_dicom_folder(place):
            return pathlib.Path(place)
    return None
