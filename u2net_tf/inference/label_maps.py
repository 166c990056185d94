"""Label maps of scans as files: each scan is read, predicted and saved once."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from absl import logging

from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import plausibility, usable_cases
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.output_paths import paths_of_outputs
from u2net_tf.inference.outputs import (
    PREVIEW,
    PROBABILITIES,
    Outputs,
    require_writable,
)
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import PreparedScan, prepare_scan
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.inference.volumes_table import VolumesTable
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization import figures
from u2net_tf.visualization.preview import draw_preview
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import images, label_map_files
from u2net_tf.volumes.grid import Volume


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
    preview: bool = False,
    output_format: str = "input",
    volumes_csv: pathlib.Path | None = None,
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
      reading: how many scans are read and preprocessed ahead at most (see
        `parallel.map_ahead`), how, within which memory, and whether one that cannot be
        used ends it all.
      save_probabilities: whether to write them beside each label map.
      preview: whether to write a picture beside each label map.
      output_format: see `label_map_files.output_suffix`.
      volumes_csv: table to write of the volumes of the classes in all label maps,
        those that were left alone included.
      overwrite: predict all scans, and replace any file.
      executor: reads and preprocesses the scans; None for threads of this process.
      progress: shows how many scans are done.

    Raises:
      InputError: names the file, before the first scan is predicted: if one cannot be
        written, or if a scan, or a file that was not written here or was edited since,
        would be replaced; and, unless they are skipped, at the first scan that cannot
        be used.
      StoppedError: if a package is missing that the format or the picture needs.
    """
    domain = predictor.spec.plan.domains[index]
    budget = MemoryBudget.of_process(predictor, [index], reading)
    reading = budget.of_scans(reading)
    outputs = _outputs(
        predictor,
        index,
        found,
        output_dir,
        reading,
        save_probabilities=save_probabilities,
        preview=preview,
        output_format=output_format,
    )
    existing = [
        scan for scan in found.scans if not overwrite and outputs[scan].is_complete()
    ]
    pending = [scan for scan in found.scans if scan not in existing]
    _check_writable([outputs[scan] for scan in pending], overwrite=overwrite)
    num_edited = warn_of_edited([outputs[scan] for scan in existing])
    table = _open_table(volumes_csv, outputs, overwrite=overwrite)
    for scan in existing:
        table.read(scan, outputs[scan], domain, max_memory_gb=reading.max_memory_gb)
    skipped = usable_cases.leave_out_all(found.incomplete, reading)
    needs: dict[Scan, Need] = {}
    check = functools.partial(
        _check_headers, domain, reading, outputs, save_probabilities, needs
    )
    skipped |= usable_cases.check_all(
        functools.partial(budget.call, check), pending, reading
    )
    pending = list(needs)
    reading = budget.of_workers(reading, list(needs.values()))
    # None of these refers to the predictor: another process may read.
    read = functools.partial(
        budget.call, functools.partial(_read_scan, domain, reading, save_probabilities)
    )
    bar = progress(desc="predicting", total=len(pending), unit="case")
    with usable_cases.read_ahead(
        read, pending, reading, skipped=skipped, bar=bar, executor=executor
    ) as prepared:
        for scan, content in prepared:
            classes = write_label_map(
                predictor, index, content, outputs[scan], num_scans=len(found.scans)
            )
            table.add(scan.name, classes, content.raw.grid, domain)
            # Freed before the next one is waited for.
            del content, classes
    table.write()
    return Report(len(existing), num_edited, dict(sorted(skipped.items())))


def _outputs(
    predictor: Predictor,
    index: int,
    found: FoundScans,
    output_dir: pathlib.Path,
    reading: ReadingConfig,
    *,
    save_probabilities: bool,
    preview: bool,
    output_format: str,
) -> dict[Scan, Outputs]:
    """The files of each scan, once it is known that their formats can be written."""
    firsts = [scan.paths[0] for scan in found.scans]
    domain = predictor.spec.plan.domains[index]
    label_map_files.require_format(output_format, firsts, domain)
    if preview:
        figures.require_matplotlib()
    paths = paths_of_outputs(
        found.scans,
        output_dir,
        save_probabilities=save_probabilities,
        preview=preview,
        output_format=output_format,
    )
    return {
        scan: Outputs(
            output_dir,
            scan.name,
            of_scan,
            predictor.key(
                index,
                scan.paths,
                resample_modalities=reading.resample_modalities and len(scan.paths) > 1,
            ),
        )
        for scan, of_scan in paths.items()
    }


def _open_table(
    path: pathlib.Path | None, outputs: dict[Scan, Outputs], *, overwrite: bool
) -> VolumesTable:
    table = VolumesTable(path)
    others = [path for scan in outputs for path in scan.paths]
    others += [path for one in outputs.values() for path in one.all_paths]
    table.require_writable(others, overwrite=overwrite)
    return table


def _check_writable(pending: Sequence[Outputs], *, overwrite: bool) -> None:
    if not overwrite:
        for outputs in pending:
            outputs.require_unedited()
    require_writable(path for outputs in pending for path in outputs.all_paths)


def warn_of_edited(existing: Sequence[Outputs]) -> int:
    """Names the files that were edited since; returns how many there are."""
    edited = [path for outputs in existing for path in outputs.edited()]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    return len(edited)


def _check_headers(
    domain: Domain,
    reading: ReadingConfig,
    outputs: dict[Scan, Outputs],
    with_probabilities: bool,
    needs: dict[Scan, Need],
    scan: Scan,
) -> None:
    """Checks a scan by its headers; notes what it takes if it can be used."""
    grid = case_files.check_headers(
        scan.paths, domain, **usable_cases.read_options(reading)
    )
    for path in outputs[scan].paths:
        label_map_files.require_format_for(grid, path)
    needs[scan] = Need.of_scan(grid, domain, with_probabilities=with_probabilities)


def _read_scan(
    domain: Domain, reading: ReadingConfig, with_probabilities: bool, scan: Scan
) -> PreparedScan:
    image = case_files.read_image(
        scan.paths, domain, **usable_cases.read_options(reading)
    )
    warn_of_differences(image, domain)
    return prepare_scan(
        image,
        domain,
        with_probabilities=with_probabilities,
        max_memory_gb=reading.max_memory_gb,
    )


def warn_of_differences(image: Volume, domain: Domain) -> None:
    """Says in what a scan is far from those of a domain."""
    if found := plausibility.differences(image, domain):
        logging.warning(
            "%s: does not look like a scan of %s: %s",
            image.grid.path,
            domain.name,
            "; ".join(found),
        )


def write_label_map(
    predictor: Predictor,
    index: int,
    scan: PreparedScan,
    outputs: Outputs,
    *,
    num_scans: int | None = None,
) -> np.ndarray:
    """Predicts a scan; writes its label map, and probabilities and picture if wanted.

    Args:
      predictor: the model.
      index: index of the domain.
      scan: the scan.
      outputs: its files.
      num_scans: as of `predict_prepared`.

    Returns:
      (z, y, x) uint8 class indices, on the grid of the scan.
    """
    domain = predictor.spec.plan.domains[index]
    probabilities_path = outputs.path(PROBABILITIES)
    prediction = predictor.predict_prepared(
        scan,
        index,
        with_probabilities=probabilities_path is not None,
        num_scans=num_scans,
    )
    outputs.begin()
    if prediction.probabilities is not None and probabilities_path is not None:
        images.save_probabilities(
            probabilities_path, prediction.probabilities, scan.raw.grid
        )
    save_classes(scan.raw, prediction.classes, domain, outputs)
    return prediction.classes


def save_classes(
    scan: Volume, classes: np.ndarray, domain: Domain, outputs: Outputs
) -> None:
    """Writes the label map of a scan, and its picture if wanted: the last of its files.

    Args:
      scan: the scan.
      classes: (z, y, x) class indices.
      domain: gives the classes.
      outputs: the files of the scan.
    """
    preview_path = outputs.path(PREVIEW)
    if preview_path is not None:
        draw_preview(
            scan,
            classes,
            [label.name for label in domain.labels],
            preview_path,
            title=f"{domain.name}, {outputs.name}",
        )
    label_map_files.save_label_map(outputs.label_map, classes, scan.grid, domain)
    outputs.finish()
