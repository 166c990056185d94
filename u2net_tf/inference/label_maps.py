"""Label maps of scans as files: each scan is read, predicted and saved once."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from concurrent.futures import Executor

import numpy as np
from absl import logging

from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import plausibility, usable_cases
from u2net_tf.inference.outputs import (
    LABEL_MAP,
    PROBABILITIES,
    Outputs,
    require_writable,
)
from u2net_tf.inference.predictor import Predictor, PreparedScan, prepare_scan
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import images, itk_files


@dataclasses.dataclass(frozen=True)
class Report:
    """What `predict_scans` did.

    Attributes:
      num_existing: scans that had been predicted before, and were left alone.
      num_edited: files of these that were edited since.
      skipped: name -> reason of the scans that could not be used.
    """

    num_existing: int
    num_edited: int
    skipped: dict[str, InputError]


def predict_scans(
    predictor: Predictor,
    index: int,
    found: FoundScans,
    output_dir: pathlib.Path,
    *,
    reading: ReadingConfig,
    save_probabilities: bool = False,
    output_format: str = "input",
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Report:
    """Writes the label maps of scans, except of those that were predicted before.

    Args:
      predictor: the model.
      index: index of the domain.
      found: the scans.
      output_dir: folder to write to.
      reading: how many scans are read and preprocessed ahead (see
        `parallel.map_ahead`), how, and whether one that cannot be used ends it all.
      save_probabilities: whether to write them beside each label map.
      output_format: see `images.output_suffix`.
      overwrite: predict all scans, and replace any file.
      executor: reads and preprocesses the scans; None for threads of this process.
      progress: shows how many scans are done.

    Raises:
      InputError: names the file, before the first scan is predicted: if one cannot be
        written, or if a scan, or a file that was not written here or was edited since,
        would be replaced; and, unless they are skipped, at the first scan that cannot
        be used.
    """
    outputs = _outputs(
        predictor, index, found, output_dir, reading, save_probabilities, output_format
    )
    existing = [
        scan for scan in found.scans if not overwrite and outputs[scan].is_complete()
    ]
    pending = [scan for scan in found.scans if scan not in existing]
    if not overwrite:
        for scan in pending:
            outputs[scan].require_unedited()
    require_writable(path for scan in pending for path in outputs[scan].all_paths)
    edited = [path for scan in existing for path in outputs[scan].edited()]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    domain = predictor.spec.plan.domains[index]
    skipped: dict[str, InputError] = {}
    for name, reason in found.incomplete.items():
        usable_cases.leave_out(name, reason, skipped, reading)
    check = functools.partial(_check_headers, domain, reading, outputs)
    skipped |= usable_cases.check_all(check, pending, reading)
    pending = [scan for scan in pending if scan.name not in skipped]
    # None of these refers to the predictor: another process may read.
    read = functools.partial(_read_scan, domain, reading, save_probabilities)
    bar = progress(desc="predicting", total=len(pending), unit="case")
    with usable_cases.read_ahead(
        read, pending, reading, skipped=skipped, bar=bar, executor=executor
    ) as prepared:
        for scan, content in prepared:
            write_label_map(
                predictor, index, content, outputs[scan], num_scans=len(found.scans)
            )
            # Freed before the next one is waited for.
            del content
    return Report(len(existing), len(edited), dict(sorted(skipped.items())))


def _outputs(
    predictor: Predictor,
    index: int,
    found: FoundScans,
    output_dir: pathlib.Path,
    reading: ReadingConfig,
    save_probabilities: bool,
    output_format: str,
) -> dict[Scan, Outputs]:
    """The files of each scan, none of which is a scan or that of another one."""
    kinds = [PROBABILITIES] if save_probabilities else []
    paths = {
        scan: [
            output_dir / f"{scan.name}{kind}{suffix}"
            for suffix in [images.output_suffix(scan.paths[0], output_format)]
            for kind in [*kinds, LABEL_MAP]
        ]
        for scan in found.scans
    }
    _require_other_folder(output_dir, paths)
    _require_distinct(paths)
    return {
        scan: Outputs(
            output_dir,
            scan.name,
            paths[scan],
            predictor.key(
                index,
                scan.paths,
                resample_modalities=reading.resample_modalities and len(scan.paths) > 1,
            ),
        )
        for scan in found.scans
    }


def _check_headers(
    domain: Domain, reading: ReadingConfig, outputs: dict[Scan, Outputs], scan: Scan
) -> None:
    grid = case_files.check_headers(
        scan.paths, domain, **usable_cases.read_options(reading)
    )
    for path in outputs[scan].paths:
        itk_files.require_format_for(grid, path)


def _read_scan(
    domain: Domain, reading: ReadingConfig, with_probabilities: bool, scan: Scan
) -> PreparedScan:
    image = case_files.read_image(
        scan.paths, domain, **usable_cases.read_options(reading)
    )
    if found := plausibility.differences(image, domain):
        logging.warning(
            "%s: does not look like a scan of %s: %s",
            image.grid.path,
            domain.name,
            "; ".join(found),
        )
    return prepare_scan(
        image,
        domain,
        with_probabilities=with_probabilities,
        max_memory_gb=reading.max_memory_gb,
    )


def write_label_map(
    predictor: Predictor,
    index: int,
    scan: PreparedScan,
    outputs: Outputs,
    *,
    num_scans: int | None = None,
) -> np.ndarray:
    """Predicts a scan and writes its label map, and its probabilities if wanted.

    Args:
      predictor: the model.
      index: index of the domain.
      scan: the scan.
      outputs: its files; the last is the label map, one before it the probabilities.
      num_scans: as of `predict_prepared`.

    Returns:
      (z, y, x) uint8 class indices, on the grid of the scan.
    """
    *probability_paths, labels_path = outputs.paths
    prediction = predictor.predict_prepared(
        scan,
        index,
        with_probabilities=bool(probability_paths),
        num_scans=num_scans,
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


def _require_distinct(paths: dict[Scan, list[pathlib.Path]]) -> None:
    """Checks that no two scans would be written to the same file."""
    owners: dict[pathlib.Path, Scan] = {}
    for scan, written in paths.items():
        for path in written:
            other = owners.setdefault(path, scan)
            if other is not scan:
                raise InputError(
                    path,
                    expected="the output of one scan",
                    received=f"that of {other.name!r} and of {scan.name!r}",
                )
