"""Names of cases, derived from the names of their files."""

from __future__ import annotations

import os
import pathlib
import unicodedata
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.wording import first_few

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
# Label maps of 3D Slicer.
SEGMENTATION_SUFFIX = ".seg.nrrd"


def is_scan_name(path: str | os.PathLike) -> bool:
    """Returns whether a file name has the suffix of a volume, regardless of case."""
    return pathlib.PurePath(path).name.lower().endswith(SCAN_SUFFIXES)


def scan_suffix(path: str | os.PathLike) -> str:
    """Returns the suffix of a volume's file name, as spelled.

    Raises:
      InputError: if the name has a different suffix.
    """
    name = pathlib.PurePath(path).name
    for suffix in SCAN_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[-len(suffix) :]
    raise InputError(
        path,
        expected=f"a name ending in {', '.join(SCAN_SUFFIXES[:-1])} or "
        f"{SCAN_SUFFIXES[-1]}",
        received=name,
    )


def scan_stem(path: str | os.PathLike) -> str:
    """Returns the file name without folder and suffix; raises like `scan_suffix`."""
    return pathlib.PurePath(path).name.removesuffix(scan_suffix(path))


def label_map_stem(path: str | os.PathLike) -> str:
    """Returns `scan_stem` of a label map, whose suffix may also be `.seg.nrrd`."""
    name = pathlib.PurePath(path).name
    if name.lower().endswith(SEGMENTATION_SUFFIX):
        return name[: -len(SEGMENTATION_SUFFIX)]
    return scan_stem(path)


def channel_path(path: pathlib.Path, channel: int) -> pathlib.Path:
    """Returns the file of a channel of a case, as nnU-Net names it: `case_0000.nii.gz`.

    Args:
      path: the case's name with folder and suffix.
      channel: index of the channel.
    """
    suffix = scan_suffix(path)
    return path.with_name(f"{path.name.removesuffix(suffix)}_{channel:04d}{suffix}")


def distinct_names(
    paths: Sequence[pathlib.Path], folder: pathlib.Path, source: object
) -> list[str]:
    """Returns distinct names of images, from their files or, if necessary, folders.

    With a folder per patient, all images may be called `ct.nii.gz`. Such cases get the
    names of their folders, or those of folders and file, joined by underscores.

    Args:
      paths: the images, without duplicates.
      folder: folder of the dataset.
      source: what lists the images, for error messages.

    Raises:
      InputError: if even then two images have the same name.
    """
    below = [pathlib.PurePath(os.path.relpath(path, folder)) for path in paths]
    common = os.path.commonpath([path.parent for path in below])
    folders = [os.path.relpath(path.parent, common or ".") for path in below]
    parts = [pathlib.PurePath(text).parts for text in folders]
    stems = [scan_stem(path) for path in paths]
    candidates = (
        stems,
        ["_".join(names) for names in parts],
        ["_".join((*names, stem)) for names, stem in zip(parts, stems, strict=True)],
    )
    for names in candidates:
        if all(names) and len(set(names)) == len(names):
            return names
    names = candidates[-1]
    ambiguous = [
        str(path)
        for path, name in zip(below, names, strict=True)
        if names.count(name) > 1
    ]
    raise InputError(
        source, expected="cases with different names", received=first_few(ambiguous)
    )


def require_distinct_file_names(names: Sequence[str], source: object) -> None:
    """Checks that files named after cases are distinct on any file system.

    Args:
      names: names of the cases.
      source: what lists the cases, for error messages.

    Raises:
      InputError: if names differ only in case or in their Unicode normalization.
    """
    by_key: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        by_key.setdefault(key, []).append(name)
    equal = [name for group in by_key.values() if len(group) > 1 for name in group]
    if equal:
        raise InputError(
            source,
            expected="case names that differ in more than upper and lower case",
            received=first_few(equal),
            hint="Some file systems do not distinguish them; rename a file",
        )


def require_utf8(paths: Sequence[pathlib.Path], source: object) -> None:
    """Checks that paths can be written to files of text, which are UTF-8.

    Args:
      paths: the paths.
      source: what lists them, for error messages.

    Raises:
      InputError: if a path contains other bytes.
    """
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(
                source, expected="paths in UTF-8", received=path, hint="Rename it"
            ) from None
