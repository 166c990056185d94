"""Paths of the files that are written for each scan, without conflicts."""

from __future__ import annotations

import pathlib

from u2net_tf.errors import InputError
from u2net_tf.inference.outputs import (
    LABEL_MAP,
    LABEL_TABLE,
    PREVIEW,
    PROBABILITIES,
)
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.volumes import dicom_segmentation
from u2net_tf.volumes.label_map_files import output_suffix, probabilities_suffix

# Kind of file, of `outputs.KINDS` -> its path.
Paths = dict[str, pathlib.Path]


def paths_of_outputs(
    found: FoundScans,
    output_dir: pathlib.Path,
    *,
    save_probabilities: bool,
    preview: bool,
    output_format: str,
    label_table: bool = False,
) -> dict[Scan, Paths]:
    """Returns the files of each scan, also of other parts, the label map last.

    Args:
      found: scans to predict.
      output_dir: folder to write to.
      save_probabilities: whether to write them.
      preview: whether to write a preview.
      output_format: see `label_map_files.output_suffix`.
      label_table: whether to write the table of the label map's values.

    Raises:
      InputError: if a scan, or a file of another scan, would be replaced.
    """
    paths: dict[Scan, Paths] = {}
    for scan in (*found.scans, *found.others):
        suffix = output_suffix(scan.paths[0], output_format)
        endings = {LABEL_MAP: suffix}
        if preview:
            endings = {PREVIEW: ".png", **endings}
        if label_table:
            endings = {LABEL_TABLE: ".json", **endings}
        if save_probabilities:
            endings = {PROBABILITIES: probabilities_suffix(suffix), **endings}
        paths[scan] = {
            kind: output_dir / f"{scan.name}{kind}{ending}"
            for kind, ending in endings.items()
        }
    _require_other_folder(output_dir, paths)
    _require_distinct(paths)
    return paths


def _require_other_folder(output_dir: pathlib.Path, paths: dict[Scan, Paths]) -> None:
    """Checks that the output is a folder, and that no scan would be replaced."""
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(
            "`output`", expected="a folder", received=f"the file {output_dir}"
        )
    inputs = {path.resolve() for scan in paths for path in scan.paths}
    for path in (path for written in paths.values() for path in written.values()):
        resolved = path.resolve()
        # A segmentation may have the name of a slice, and would be read with them.
        is_slice = path.suffix == dicom_segmentation.SUFFIX
        if resolved in inputs or (is_slice and resolved.parent in inputs):
            raise InputError(
                "`output`",
                expected="a folder other than that of the scans",
                received=f"{path}, which would be overwritten"
                if resolved in inputs
                else f"{path}, in the folder of a DICOM series",
            )


def _require_distinct(paths: dict[Scan, Paths]) -> None:
    """Checks that no two scans would be written to the same file."""
    owners: dict[pathlib.Path, Scan] = {}
    for scan, written in paths.items():
        for path in written.values():
            other = owners.setdefault(path, scan)
            if other is not scan:
                raise InputError(
                    path,
                    expected="the output of a single scan",
                    received=f"that of {other.name!r} and {scan.name!r}",
                )
