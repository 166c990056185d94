"""What label maps were made with, so that none is made twice and none is lost.

A record beside the outputs of a scan, `.predicted/NAME.json`, holds the key of what
they were made with and the signatures of the files as they were written.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping

from pydantic import Field

from u2net_tf import files, migrations, schema, temporary_names, work_log
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.volumes import dicom_segmentation, seg_nrrd
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES

# What follows a scan's name in the names of the files that are written for it.
LABEL_MAP, PROBABILITIES, PREVIEW = "", "_probabilities", "_preview"
# Which value of a label map of several domains is what.
LABEL_TABLE = "_labels"
KINDS = (LABEL_MAP, PROBABILITIES, PREVIEW, LABEL_TABLE)
# Endings of these names.
_SUFFIXES = (
    *SCAN_SUFFIXES,
    seg_nrrd.SUFFIX,
    dicom_segmentation.SUFFIX,
    ".png",
    ".json",
)


@schema.model
class PredictionRecord:
    """What is recorded of the files of one scan.

    Attributes:
      key: of what they were made with; None while they are being written.
      signatures: file name -> size and modification time when it was written.
      pending: names of files that are being written.
    """

    key: str | None = None
    signatures: dict[str, files.FileSignature] = Field(
        default_factory=dict, alias="stamps"
    )
    pending: tuple[str, ...] = ()


RECORD = FileFormat(
    name="a record of a prediction",
    made_by="python -m u2net_tf.predict",
    kind=PredictionRecord,
    oldest=0,
    upgrades=(migrations.unversioned,),
)


def require_writable(paths: Iterable[pathlib.Path]) -> None:
    """Checks that files can be written: of each folder, the one with the longest name.

    What dead runs were writing in these folders is removed.

    Raises:
      InputError: names a file that cannot be written.
    """
    longest: dict[pathlib.Path, pathlib.Path] = {}
    for path in paths:
        other = longest.setdefault(path.parent, path)
        if len(os.fsencode(path.name)) > len(os.fsencode(other.name)):
            longest[path.parent] = path
        if os.path.isdir(path):
            raise InputError(path, expected="no folder here", received="a folder")
    for path in longest.values():
        try:
            files.check_writable(path)
            temporary_names.remove_leftovers(path.parent)
        except OSError as error:
            raise InputError(
                path, expected="a file that can be written", received=error.strerror
            ) from None


class Outputs:
    """The files that are written for one scan.

    Args:
      folder: where they are written.
      name: of the scan.
      paths: kind -> file, of `KINDS`.
      key: `work_log.work_key` of what they are made from.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        paths: Mapping[str, pathlib.Path],
        key: str,
    ):
        self._paths = dict(paths)
        self._folder = folder
        self.name = name
        self._record_path = folder / ".predicted" / f"{name}.json"
        self._key = key

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The files."""
        return tuple(self._paths.values())

    def path(self, kind: str) -> pathlib.Path | None:
        """The file of a kind; None if there is none."""
        return self._paths.get(kind)

    @property
    def label_map(self) -> pathlib.Path:
        """The file of the label map."""
        return self._paths[LABEL_MAP]

    @property
    def all_paths(self) -> tuple[pathlib.Path, ...]:
        """The files, and the record of them."""
        return (*self.paths, self._record_path)

    def is_complete(self) -> bool:
        """Whether all were made with the same key. They may have been edited since."""
        record = self._read()
        return record.key == self._key and all(
            path.name in record.signatures and path.is_file() for path in self.paths
        )

    def edited(self) -> list[pathlib.Path]:
        """The files that were written here and have changed since."""
        signatures = self._read().signatures
        return [
            path
            for path in self.paths
            if path.is_file()
            and path.name in signatures
            and files.file_signatures([path]) != [signatures[path.name]]
        ]

    def require_unedited(self) -> None:
        """Checks that only files that were written here would be replaced.

        Raises:
          InputError: names a file that was not written here, or was edited since.
        """
        record = self._read()
        for path in self.paths:
            (signature,) = files.file_signatures([path])
            known = record.signatures.get(path.name)
            if signature is None or signature == known or path.name in record.pending:
                continue
            raise InputError(
                path,
                expected="no file, or one that was predicted here",
                received="one that was edited since" if known else "another file",
                hint="Use `overwrite` to replace it",
            )

    def adopt(self, key: str) -> None:
        """Records existing files as written here, unless there is a record.

        Args:
          key: what they were made with.
        """
        if not self._record_path.is_file():
            signatures = {
                path.name: files.file_signatures([path])[0] for path in self.paths
            }
            self._write(PredictionRecord(key, signatures))

    def begin(self) -> None:
        """Records that the files are incomplete, before the first is written."""
        names = tuple(path.name for path in self.paths)
        self._write(PredictionRecord(None, self._read().signatures, names))

    def finish(self) -> None:
        """Records the files as complete; removes others of an earlier prediction."""
        names = [path.name for path in self.paths]
        for name, signature in self._read().signatures.items():
            if name in names or not self._may_be_ours(name):
                continue
            path = self._folder / name
            if files.file_signatures([path]) == [signature]:
                path.unlink()
        signatures = dict(zip(names, files.file_signatures(self.paths), strict=True))
        self._write(PredictionRecord(self._key, signatures))

    def _may_be_ours(self, name: str) -> bool:
        """Whether files of this scan can have a name: a record may have been edited."""
        return name in {
            f"{self.name}{kind}{suffix}" for kind in KINDS for suffix in _SUFFIXES
        }

    def _write(self, record: PredictionRecord) -> None:
        work_log.write_record(self._record_path, RECORD, record)

    def _read(self) -> PredictionRecord:
        """Empty if there is none that can be read: then no file was written here."""
        return work_log.read_record(self._record_path, RECORD) or PredictionRecord()
