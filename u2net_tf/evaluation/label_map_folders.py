"""Finds the label maps of cases in folders."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping, Sequence

from u2net_tf.errors import InputError
from u2net_tf.volumes import msd
from u2net_tf.volumes.scan_names import (
    SCAN_SUFFIXES,
    is_scan_name,
    label_map_stem,
    scan_stem,
)


def list_label_maps(
    folders: Sequence[pathlib.Path], domain: str, *, flat: bool
) -> dict[str, pathlib.Path]:
    """Returns the label maps of a domain in folders.

    Args:
      folders: folders with a folder named like the domain, or with its label maps.
      domain: name of the domain.
      flat: whether a folder without such a folder may have the label maps itself.

    Returns:
      Name without suffix (`.seg.nrrd` is one) -> file, sorted by name; hidden files
      are left out.

    Raises:
      InputError: if a folder is missing or has no label maps, or two files have the
        same name, for example in different formats.
    """
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        place = folder / domain
        if flat and not place.is_dir():
            place = folder
        if not place.is_dir():
            received = "a file" if place.exists() else "no such folder"
            raise InputError(place, expected="a folder", received=received)
        volumes = [
            path
            for path in sorted(place.iterdir())
            if is_scan_name(path) and not path.name.startswith(".")
        ]
        if not volumes:
            suffixes = " or ".join(SCAN_SUFFIXES)
            raise InputError(
                place, expected=f"label maps ({suffixes})", received="none"
            )
        for path in volumes:
            name = label_map_stem(path)
            other = found.setdefault(name, path)
            if other != path:
                raise InputError(
                    path,
                    expected=f"one label map of {name}",
                    received=f"another one, {other}",
                )
    return dict(sorted(found.items()))


def match_label_maps(
    label_maps: Mapping[str, pathlib.Path],
    cases: Sequence[msd.Case],
    every_case: Sequence[msd.Case],
) -> dict[msd.Case, pathlib.Path | None]:
    """Returns the label map of each case; None if there is none.

    `evaluate` names label maps like the case, and `predict` like the file of the image,
    for example `case_0000.nii.gz`. A name that could be meant for several cases is only
    that of the case which is called so: with a folder per patient, the images of all
    cases may have the same name.

    Args:
      label_maps: result of `list_label_maps`.
      cases: the cases.
      every_case: these and the other cases of the dataset.

    Raises:
      InputError: if a case has two.
    """
    num_cases = collections.Counter(n for case in every_case for n in _names(case))
    found = {}
    for case in cases:
        paths = [
            label_maps[name]
            for name in _names(case)
            if name in label_maps and (name == case.name or num_cases[name] == 1)
        ]
        if len(paths) > 1:
            raise InputError(
                paths[0],
                expected=f"one label map of {case.name}",
                received=f"another one, {paths[1]}",
            )
        found[case] = paths[0] if paths else None
    return found


def _names(case: msd.Case) -> list[str]:
    """Returns the distinct names that its label map may have."""
    return list(dict.fromkeys((case.name, scan_stem(case.image_path))))
