"""Label maps of scans as files: each scan is read, predicted and saved once."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from absl import logging

from u2net_tf import parallel
from u2net_tf.errors import InputError
from u2net_tf.inference.outputs import Outputs
from u2net_tf.inference.predictor import Predictor, PreparedScan, prepare_scan
from u2net_tf.inference.scans import Scan
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import images


@dataclasses.dataclass(frozen=True)
class Report:
    """What `predict_scans` did.

    Attributes:
      num_existing: scans that had been predicted before, and were left alone.
      num_edited: files of these that were edited since.
    """

    num_existing: int
    num_edited: int


def predict_scans(
    predictor: Predictor,
    index: int,
    scans: Sequence[Scan],
    output_dir: pathlib.Path,
    *,
    save_probabilities: bool = False,
    output_format: str = "input",
    overwrite: bool = False,
    num_workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Report:
    """Writes the label maps of scans, except of those that were predicted before.

    Args:
      predictor: the model.
      index: index of the domain.
      scans: the scans.
      output_dir: folder to write to.
      save_probabilities: whether to write them beside each label map.
      output_format: see `images.output_suffix`.
      overwrite: predict all scans, and replace any file.
      num_workers: scans to read and preprocess ahead; see `parallel.map_ahead`.
      executor: reads and preprocesses the scans; None for threads of this process.
      progress: shows how many scans are done.

    Raises:
      InputError: names the file, if a scan cannot be used, or if a scan, or a file that
        was not written here or was edited since, would be replaced. The latter is
        found before the first scan is predicted.
    """
    kinds = ["_probabilities"] if save_probabilities else []
    paths = {
        scan: [
            output_dir / f"{scan.name}{kind}{suffix}"
            for suffix in [images.output_suffix(scan.paths[0], output_format)]
            for kind in [*kinds, ""]
        ]
        for scan in scans
    }
    _require_other_folder(output_dir, paths)
    outputs = {
        scan: Outputs(
            output_dir, scan.name, paths[scan], predictor.key(index, scan.paths)
        )
        for scan in scans
    }
    existing = [scan for scan in scans if not overwrite and outputs[scan].is_complete()]
    pending = [scan for scan in scans if scan not in existing]
    if not overwrite:
        for scan in pending:
            outputs[scan].require_unedited()
    edited = [path for scan in existing for path in outputs[scan].edited()]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    # Neither refers to the predictor: another process may read.
    read = functools.partial(_read_scan, predictor.spec.plan.domains[index])
    bar = progress(desc="predicting", total=len(pending), unit="case")
    with (
        bar,
        parallel.map_ahead(
            read, pending, num_workers=num_workers, executor=executor
        ) as prepared,
    ):
        for scan, content in prepared:
            write_label_map(predictor, index, content, outputs[scan])
            # Freed before the next one is waited for.
            del content
            bar.update()
    return Report(len(existing), len(edited))


def _read_scan(domain: Domain, scan: Scan) -> PreparedScan:
    return prepare_scan(case_files.read_image(scan.paths, domain), domain)


def write_label_map(
    predictor: Predictor, index: int, scan: PreparedScan, outputs: Outputs
) -> np.ndarray:
    """Predicts a scan and writes its label map, and its probabilities if wanted.

    Args:
      predictor: the model.
      index: index of the domain.
      scan: the scan.
      outputs: its files; the last is the label map, one before it the probabilities.

    Returns:
      (z, y, x) uint8 class indices, on the grid of the scan.
    """
    *probability_paths, labels_path = outputs.paths
    prediction = predictor.predict_prepared(
        scan, index, with_probabilities=bool(probability_paths)
    )
    outputs.begin()
    if prediction.probabilities is not None:
        (path,) = probability_paths
        images.save_probabilities(path, prediction.probabilities, scan.raw.grid)
    labels = case_files.raw_labels(
        prediction.classes, predictor.spec.plan.domains[index]
    )
    images.save_labels(labels_path, labels, scan.raw.grid)
    outputs.finish()
    return prediction.classes


def _require_other_folder(
    output_dir: pathlib.Path, paths: dict[Scan, list[pathlib.Path]]
) -> None:
    """Checks that the output is a folder, and that no scan would be replaced."""
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(
            "`output`", expected="a folder", received=f"the file {output_dir}"
        )
    inputs = {path.resolve() for scan in paths for path in scan.paths}
    for path in (path for written in paths.values() for path in written):
        if path.resolve() in inputs:
            raise InputError(
                "`output`",
                expected="another folder than that of the scans",
                received=f"{path}, which would be overwritten",
            )
