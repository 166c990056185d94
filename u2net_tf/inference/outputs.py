"""Records of outputs, so that none is predicted twice and no edited file is lost.

The record of a scan, `.predicted/NAME.json` in the folder of its outputs, contains the
key of what they were predicted from and the signatures of the files as written.
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

# Suffixes of a scan's name in the names of its output files.
LABEL_MAP, PROBABILITIES, PREVIEW = "", "_probabilities", "_preview"
# The table of the values of a label map of several domains.
LABEL_TABLE = "_labels"
KINDS = (LABEL_MAP, PROBABILITIES, PREVIEW, LABEL_TABLE)
# File endings of these names.
_SUFFIXES = (
    *SCAN_SUFFIXES,
    seg_nrrd.SUFFIX,
    dicom_segmentation.SUFFIX,
    ".png",
    ".json",
)


@schema.model
class PredictionRecord:
    """Record of the output files of one scan.

    Attributes:
      key: key of what they were predicted from; None while they are being written.
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
    """Checks that files can be written, by the longest name of each folder.

    Temporary files that dead runs left in these folders are removed.

    Raises:
      InputError: if a file cannot be written.
    """
    longest: dict[pathlib.Path, pathlib.Path] = {}
    for path in paths:
        other = longest.setdefault(path.parent, path)
        if len(os.fsencode(path.name)) > len(os.fsencode(other.name)):
            longest[path.parent] = path
        if os.path.isdir(path):
            raise InputError(path, expected="a path for a file", received="a folder")
    for path in longest.values():
        try:
            files.check_writable(path)
            temporary_names.remove_leftovers(path.parent)
        except OSError as error:
            raise InputError(
                path, expected="a file that can be written", received=error.strerror
            ) from None


def _recorded(path: pathlib.Path) -> str:
    """Returns the name of a file in records; bytes that are not UTF-8 are escaped."""
    return path.name.encode("utf-8", "backslashreplace").decode()


class Outputs:
    """The files that are written for one scan.

    Args:
      folder: folder of the files.
      name: name of the scan.
      paths: kind, one of `KINDS`, -> file.
      key: `work_log.work_key` of what they are predicted from.
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
        self._must_be_unedited = False

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The files."""
        return tuple(self._paths.values())

    def path(self, kind: str) -> pathlib.Path | None:
        """Returns the file of a kind; None if there is none."""
        return self._paths.get(kind)

    @property
    def label_map(self) -> pathlib.Path:
        """The file of the label map."""
        return self._paths[LABEL_MAP]

    @property
    def all_paths(self) -> tuple[pathlib.Path, ...]:
        """The files and their record."""
        return (*self.paths, self._record_path)

    def is_complete(self) -> bool:
        """Returns whether all were written with this key; they may have been edited."""
        record = self._read()
        return record.key == self._key and all(
            _recorded(path) in record.signatures and path.is_file()
            for path in self.paths
        )

    def edited(self) -> list[pathlib.Path]:
        """Returns the files that were written here and edited since."""
        signatures = self._read().signatures
        return [
            path
            for path in self.paths
            if path.is_file()
            and _recorded(path) in signatures
            and files.file_signatures([path]) != [signatures[_recorded(path)]]
        ]

    def require_unedited(self) -> None:
        """Checks that only files that were written here would be replaced.

        Raises:
          InputError: if a file was not written here, or was edited since.
        """
        self._must_be_unedited = True
        record = self._read()
        for path in self.paths:
            (signature,) = files.file_signatures([path])
            name = _recorded(path)
            known = record.signatures.get(name)
            if signature is None or signature == known or name in record.pending:
                continue
            raise InputError(
                path,
                expected="no file, or one that was predicted here",
                received="one that was edited since" if known else "a different file",
                hint="Use `overwrite` to replace it",
            )

    def adopt(self, key: str) -> None:
        """Records existing files as written here, unless there is a record.

        Args:
          key: key of what they were predicted from.
        """
        if not self._record_path.is_file():
            signatures = {
                _recorded(path): files.file_signatures([path])[0] for path in self.paths
            }
            self._write(PredictionRecord(key, signatures))

    def begin(self) -> None:
        """Records that the files are incomplete, before the first is written.

        Raises:
          InputError: see `require_unedited`, if that was called: a file may have been
            edited while others were predicted.
        """
        if self._must_be_unedited:
            self.require_unedited()
        record = self._read()
        names = (*record.pending, *map(_recorded, self.paths))
        pending = tuple(dict.fromkeys(names))
        self._write(PredictionRecord(None, record.signatures, pending))

    def finish(self) -> None:
        """Records the files as complete; removes others of an earlier prediction."""
        names = [_recorded(path) for path in self.paths]
        record = self._read()
        known = {*record.signatures, *record.pending}.difference(names)
        for name, path in self._possible_paths().items():
            if name in known and (
                name in record.pending
                or files.file_signatures([path]) == [record.signatures.get(name)]
            ):
                path.unlink(missing_ok=True)
        signatures = dict(zip(names, files.file_signatures(self.paths), strict=True))
        self._write(PredictionRecord(self._key, signatures))

    def _possible_paths(self) -> dict[str, pathlib.Path]:
        """Returns name in records -> path, of every file that this scan can have.

        Records may be edited, and name others.
        """
        paths = [
            self._folder / f"{self.name}{kind}{suffix}"
            for kind in KINDS
            for suffix in _SUFFIXES
        ]
        return {_recorded(path): path for path in paths}

    def _write(self, record: PredictionRecord) -> None:
        work_log.write_record(self._record_path, RECORD, record)

    def _read(self) -> PredictionRecord:
        """Returns the record; an empty one if there is none that can be read."""
        return work_log.read_record(self._record_path, RECORD) or PredictionRecord()
