"""The table of class volumes in each label map."""

from __future__ import annotations

import csv
import io
import pathlib
import types
from collections.abc import Iterable, Mapping

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.inference.outputs import Outputs, require_writable
from u2net_tf.inference.scans import Scan
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.class_volumes import read_volumes_ml, volumes_ml
from u2net_tf.volumes.grid import Grid
from u2net_tf.wording import escape_controls

_COLUMNS = ("domain", "case", "class", "volume_ml")


class VolumesTable:
    """A table that is written once all cases are known.

    Args:
      path: file to write; None for no table, for which nothing is computed.
      classes: for a label map of several domains, displayed name of a class -> its
        domain and name.
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        classes: Mapping[str, tuple[str, str]] = types.MappingProxyType({}),
    ):
        self._path = path
        self._classes = classes
        # (case, domain) -> class -> volume.
        self._volumes: dict[tuple[str, str], dict[str, float]] = {}

    def require_writable(
        self, others: Iterable[pathlib.Path], *, overwrite: bool
    ) -> None:
        """Checks that the table can be written, before anything is predicted.

        Args:
          others: files that it must not replace: scans and outputs.
          overwrite: whether it may replace a file that is not such a table.

        Raises:
          InputError: if it cannot be written, or would replace a different file.
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
                expected="a separate file",
                received="a scan or one of the other outputs",
            )
        if path.exists() and not overwrite:
            text, _ = files.read_text(path)
            if text.partition("\n")[0] != ",".join(_COLUMNS):
                raise InputError(
                    where,
                    expected="no file, or a table of volumes",
                    received="a different file",
                    hint="Use `overwrite` to replace it",
                )

    def read(
        self,
        scan: Scan,
        outputs: Outputs,
        domain: Domain,
        *,
        max_memory_gb: float | None,
    ) -> None:
        """Adds a case that was already predicted, from its label map.

        Args:
          scan: the case.
          outputs: its output files.
          domain: defines the classes.
          max_memory_gb: see `memory.require_memory`.

        Raises:
          InputError: if the label map was edited and cannot be read, or has a value
            that is not a class.
        """
        if self._path is not None:
            self._volumes[scan.name, domain.name] = read_volumes_ml(
                outputs.label_map, scan.paths[0], domain, max_memory_gb=max_memory_gb
            )

    def add(self, name: str, classes: np.ndarray, grid: Grid, domain: Domain) -> None:
        """Adds a case.

        Args:
          name: name of the case.
          classes: (z, y, x) class indices.
          grid: grid of the scan.
          domain: defines the classes.
        """
        if self._path is not None:
            self._volumes[name, domain.name] = volumes_ml(classes, grid, domain)

    def write(self) -> None:
        """Writes a row per case and class, atomically."""
        if self._path is None:
            return
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (name, domain), volumes in sorted(
            self._volumes.items(), key=lambda item: item[0]
        ):
            # A file name may contain bytes that are not UTF-8.
            case = escape_controls(name)
            for label, volume in volumes.items():
                owner, class_name = self._classes.get(label, (domain, label))
                writer.writerow([owner, case, class_name, f"{volume:.6f}"])
        files.write_text(self._path, stream.getvalue())
