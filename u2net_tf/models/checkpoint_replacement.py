"""Replaces a checkpoint by another of the same step without ever losing both.

The files of both have the same names and cannot be exchanged at once. Therefore the old
ones are copied first, and are restored if the replacement was interrupted.
"""

from __future__ import annotations

import os
import pathlib
import shutil

from u2net_tf import files

# Of the folder of the copies.
SUFFIX = ".replaced"


def back_up(path: pathlib.Path) -> None:
    """Copies the files of a checkpoint to where `settle` finds them.

    Raises:
      OSError: if they cannot be copied, for example on a full disk.
    """
    backup = pathlib.Path(f"{path}{SUFFIX}")
    backup.mkdir(exist_ok=True)
    for part in (pathlib.Path(f"{path}.index"), *_data_files(path.parent, path.name)):
        shutil.copyfile(part, backup / part.name)
        files.sync_file(backup / part.name)
    files.sync_folder(backup)
    files.sync_folder(path.parent)


def move_into_place(source: pathlib.Path, path: pathlib.Path) -> None:
    """Moves the files of a complete checkpoint from a folder to its path.

    Raises:
      OSError: if they cannot be moved.
    """
    for part in _data_files(source, path.name):
        os.replace(part, path.with_name(part.name))
    # A power cut must not leave an index without its data.
    files.sync_folder(path.parent)
    os.replace(source / f"{path.name}.index", f"{path}.index")
    files.sync_folder(path.parent)


def settle(path: pathlib.Path) -> None:
    """Restores the files that `back_up` copied if there is no index; removes the copy.

    Raises:
      OSError: if they cannot be restored.
    """
    backup = pathlib.Path(f"{path}{SUFFIX}")
    if not backup.is_dir():
        return
    # A backup without an index was being written or removed.
    is_complete = (backup / f"{path.name}.index").exists()
    if is_complete and not pathlib.Path(f"{path}.index").exists():
        move_into_place(backup, path)
    shutil.rmtree(backup, ignore_errors=True)


def _data_files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    return list(folder.glob(f"{name}.data-*"))
