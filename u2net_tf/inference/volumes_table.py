"""The table of the volumes of the classes in each label map."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.inference.outputs import Outputs, require_writable
from u2net_tf.inference.scans import Scan
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.class_volumes import read_volumes_ml, volumes_ml
from u2net_tf.volumes.grid import Grid

_COLUMNS = ("domain", "case", "class", "volume_ml")


class VolumesTable:
    """A table that is written once all cases are known.

    Args:
      path: file to write; None for no table, of which nothing is then computed.
      domain: gives the classes.
    """

    def __init__(self, path: pathlib.Path | None, domain: Domain):
        self._path = path
        self._domain = domain
        self._volumes: dict[str, dict[str, float]] = {}

    def require_writable(
        self, others: Iterable[pathlib.Path], *, overwrite: bool
    ) -> None:
        """Checks that the table can be written, before anything is predicted.

        Args:
          others: files that it must not replace: scans and outputs.
          overwrite: whether it may replace a file that is no such table.

        Raises:
          InputError: names the flag and the file.
        """
        path = self._path
        if path is None:
            return
        where = f"`volumes_csv`: {path}"
        if path.suffix.lower() != ".csv":
            raise InputError(
                where, expected="a name ending in .csv", received=path.name
            )
        require_writable([path])
        if path.resolve() in {other.resolve() for other in others}:
            raise InputError(
                where,
                expected="a file of its own",
                received="one that is read or written as well",
            )
        if path.exists() and not overwrite:
            text, _ = files.read_text(path)
            if text.partition("\n")[0] != ",".join(_COLUMNS):
                raise InputError(
                    where,
                    expected="no file, or a table of volumes",
                    received="another file",
                    hint="Use `overwrite` to replace it",
                )

    def read(
        self, scan: Scan, outputs: Outputs, *, max_memory_gb: float | None
    ) -> None:
        """Adds a case that was predicted before, as its label map is now.

        Raises:
          InputError: if the label map was edited, and cannot be read or holds a value
            of no class.
        """
        if self._path is not None:
            self._volumes[scan.name] = read_volumes_ml(
                outputs.label_map,
                scan.paths[0],
                self._domain,
                max_memory_gb=max_memory_gb,
            )

    def add(self, name: str, classes: np.ndarray, grid: Grid) -> None:
        """Adds a case.

        Args:
          name: of the case.
          classes: (z, y, x) class indices.
          grid: of the scan.
        """
        if self._path is not None:
            self._volumes[name] = volumes_ml(classes, grid, self._domain)

    def write(self) -> None:
        """Writes a row per case and class: whole or not at all."""
        if self._path is None:
            return
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for case, volumes in sorted(self._volumes.items()):
            for name, volume in volumes.items():
                writer.writerow([self._domain.name, case, name, f"{volume:.6f}"])
        files.write_text(self._path, stream.getvalue())
