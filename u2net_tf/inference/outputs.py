"""What label maps were made with, so that none is made twice and none is lost.

A record beside the outputs of a scan, `.predicted/NAME.json`, holds the key of what
they were made with and the stamps of the files as they were written.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from u2net_tf import files, migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat


@schema.model
class Record:
    """What is recorded of the files of one scan.

    Attributes:
      key: of what they were made with; None while they are being written.
      stamps: file name -> size and time of last change when it was written.
      pending: names of files that are being written.
    """

    key: str | None = None
    stamps: dict[str, files.Stamp] = dataclasses.field(default_factory=dict)
    pending: tuple[str, ...] = ()


RECORD = FileFormat(
    name="a record of a prediction",
    made_by="python -m u2net_tf.predict",
    kind=Record,
    oldest=0,
    upgrades=(migrations.unversioned,),
)


class Outputs:
    """The files that are written for one scan.

    Args:
      folder: where they lie.
      name: of the scan.
      paths: the files.
      key: changes whenever what is written would.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        paths: Sequence[pathlib.Path],
        key: str,
    ):
        self.paths = tuple(paths)
        self._folder = folder
        self._record_path = folder / ".predicted" / f"{name}.json"
        self._key = key

    def are_there(self) -> bool:
        """Whether all were made with the same key. They may have been edited since."""
        record = self._read()
        return record.key == self._key and all(
            path.name in record.stamps and path.is_file() for path in self.paths
        )

    def edited(self) -> list[pathlib.Path]:
        """Those that were written here and are other files now."""
        stamps = self._read().stamps
        return [
            path
            for path in self.paths
            if path.is_file()
            and path.name in stamps
            and files.stamps([path]) != [stamps[path.name]]
        ]

    def check_ours(self) -> None:
        """Checks that nothing would be written over but what was written here before.

        Raises:
          InputError: names a file that is somebody else's, or was edited.
        """
        record = self._read()
        for path in self.paths:
            (stamp,) = files.stamps([path])
            known = record.stamps.get(path.name)
            if stamp is None or stamp == known or path.name in record.pending:
                continue
            raise InputError(
                path,
                expected="no file, or one that was predicted here",
                received="one that was edited since" if known else "another file",
                hint="Use `overwrite` to replace it",
            )

    def adopt(self, key: str) -> None:
        """Takes what is there for files written here, unless there is a record.

        Args:
          key: what they were made with.
        """
        if not self._record_path.is_file():
            stamps = {path.name: files.stamps([path])[0] for path in self.paths}
            self._write(Record(key, stamps))

    def begin(self) -> None:
        """Call it before the first is written: whatever is there now is not whole."""
        names = tuple(path.name for path in self.paths)
        self._write(Record(None, self._read().stamps, names))

    def finish(self) -> None:
        """Call it after the last; removes what was left of an earlier prediction."""
        names = [path.name for path in self.paths]
        for name, stamp in self._read().stamps.items():
            path = self._folder / name
            if name not in names and files.stamps([path]) == [stamp]:
                path.unlink()
        stamps = dict(zip(names, files.stamps(self.paths), strict=True))
        self._write(Record(self._key, stamps))

    def _write(self, record: Record) -> None:
        files.write_text(self._record_path, json.dumps(RECORD.to_dict(record)))

    def _read(self) -> Record:
        """Empty if there is none, or one that cannot be read: then nothing is ours."""
        try:
            return RECORD.load(self._record_path)
        except (OSError, InputError):
            return Record()
