"""Predicts scans and writes their label maps; each scan is read once."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from absl import logging

from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import organs, usable_cases
from u2net_tf.inference.label_table import Overlap
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.organs import Organ
from u2net_tf.inference.output_layouts import Layout, ScanFiles, SingleDomainFiles
from u2net_tf.inference.outputs import Outputs, require_writable
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_organs import (
    PreparedOrgans,
    prepare,
    preprocessing_key,
)
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.inference.volumes_table import VolumesTable
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization import figures
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import label_map_files


@dataclasses.dataclass(frozen=True)
class Report:
    """Outcome of predicting scans.

    Attributes:
      num_written: number of label maps that were written.
      num_existing: number of label maps that already existed and were left unchanged.
      num_edited: number of files of these predictions that were edited since.
      skipped: name -> reason of the scans that, or whose label maps, were unusable.
      overlaps: scan -> overlaps of its domains, for scans of this run with a label map
        of several domains.
    """

    num_written: int
    num_existing: int
    num_edited: int
    skipped: dict[str, InputError]
    overlaps: dict[str, tuple[Overlap, ...]] = dataclasses.field(default_factory=dict)


def predict_scans(
    predictor: Predictor,
    index: int,
    found: FoundScans,
    output_dir: pathlib.Path,
    **options: Any,
) -> Report:
    """Writes the label maps of one domain, except for scans that already have one.

    Args:
      predictor: the model.
      index: index of the domain.
      found: the scans.
      output_dir: folder to write to.
      **options: options of `predict_files`.

    Raises:
      InputError: see `predict_files`.
      StoppedError: see `predict_files`.
    """
    organ = Organ(predictor, index)
    return predict_files(
        SingleDomainFiles([organ]),
        [organ],
        found,
        output_dir,
        modalities=organ.domain.modalities,
        **options,
    )


def predict_files(
    layout: Layout,
    chosen: Sequence[Organ],
    found: FoundScans,
    output_dir: pathlib.Path,
    *,
    modalities: Sequence[str],
    reading: ReadingConfig,
    save_probabilities: bool = False,
    preview: bool = False,
    output_format: str = "input",
    volumes_csv: pathlib.Path | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Report:
    """Writes the files of scans, except those that already exist.

    Args:
      layout: the files of a scan.
      chosen: the domains.
      found: the scans.
      output_dir: folder to write to.
      modalities: modalities of the scans; see `organs.scan_modalities`.
      reading: maximum number of scans that are read and preprocessed ahead (see
        `parallel.map_ahead`), how they are read, the memory limit, and whether an
        unusable scan stops the run.
      save_probabilities: whether to write them next to each label map.
      preview: whether to write a preview next to each label map.
      output_format: see `label_map_files.output_suffix`.
      volumes_csv: table to write of the class volumes in all label maps, including
        those that already existed.
      overwrite: predict all scans, and replace any file.
      executor: reads and preprocesses the scans; None for threads of this process.
      progress: shows the progress over scans.

    Raises:
      InputError: before the first scan is predicted, if a file cannot be written, or
        would replace a scan, or a file that was not written here or was edited since;
        or if a scan or its existing label map cannot be used, or one of its files was
        edited in the meantime, unless such scans are skipped.
      StoppedError: if a package that the format or the preview needs is missing.
    """
    _require_formats(layout, found, output_format, preview)
    files = layout.files(
        found,
        output_dir,
        modalities=modalities,
        resample_modalities=reading.resample_modalities,
        save_probabilities=save_probabilities,
        preview=preview,
        output_format=output_format,
    )
    budget = _budget(chosen, reading)
    reading = budget.of_scans(reading)
    work = _WorkList.of_files(files, overwrite=overwrite)
    table = layout.table(volumes_csv)
    work.require_writable(table, overwrite=overwrite)
    num_edited = warn_of_edited([one.outputs for _, one in work.existing])
    skipped = work.read_volumes(table, reading)
    skipped |= usable_cases.skip_all(found.incomplete, reading)
    domains = tuple(organ.domain for organ in chosen)
    reader = _Reader(domains, tuple(modalities), reading, save_probabilities)
    needs: dict[Scan, Need] = {}

    def check(scan: Scan) -> None:
        needs[scan] = reader.check(scan, work.pending[scan])

    skipped |= usable_cases.check_all(
        functools.partial(budget.call, check), list(work.pending), reading
    )
    # None of these refers to a predictor, since another process may read.
    needed = {scan: layout.needed(work.pending[scan]) for scan in needs}
    num_written, overlaps = 0, {}
    with usable_cases.read_ahead(
        functools.partial(budget.call, functools.partial(reader.read, needed)),
        list(needs),
        budget.of_workers(reading, list(needs.values())),
        skipped=skipped,
        bar=progress(desc="predicting", total=len(needs), unit="case"),
        executor=executor,
    ) as contents:
        for scan, content in contents:
            with usable_cases.skipped_if_unusable(scan.name, skipped, reading):
                overlaps[scan.name] = layout.write(
                    scan, content, work.pending[scan], table, num_scans=found.num_scans
                )
                num_written += len(work.pending[scan])
            # Freed before waiting for the next one.
            del content
    table.write()
    skipped = dict(sorted(skipped.items()))
    return Report(num_written, len(work.existing), num_edited, skipped, overlaps)


def _require_formats(
    layout: Layout, found: FoundScans, output_format: str, preview: bool
) -> None:
    firsts = [scan.paths[0] for scan in found.scans]
    for domain in layout.written:
        label_map_files.require_format(output_format, firsts, domain)
    if preview:
        figures.require_matplotlib()


@dataclasses.dataclass(frozen=True)
class _WorkList:
    """The files of scans, and which of them are still to be written.

    Attributes:
      files: scan -> all its files.
      pending: scan -> its files to write, for the scans that have any.
    """

    files: Mapping[Scan, Sequence[ScanFiles]]
    pending: Mapping[Scan, Sequence[ScanFiles]]

    @classmethod
    def of_files(
        cls, files: Mapping[Scan, Sequence[ScanFiles]], *, overwrite: bool
    ) -> _WorkList:
        pending = {
            scan: [one for one in ones if overwrite or not one.is_complete()]
            for scan, ones in files.items()
        }
        return cls(files, {scan: ones for scan, ones in pending.items() if ones})

    @property
    def existing(self) -> list[tuple[Scan, ScanFiles]]:
        return [
            (scan, one)
            for scan, ones in self.files.items()
            for one in ones
            if one not in self.pending.get(scan, ())
        ]

    @property
    def all_paths(self) -> list[pathlib.Path]:
        """The scans, and all files that are written for them."""
        outputs = [one for ones in self.files.values() for one in ones]
        return [
            *(path for scan in self.files for path in scan.paths),
            *(path for one in outputs for path in one.paths),
        ]

    def read_volumes(
        self, table: VolumesTable, reading: ReadingConfig
    ) -> dict[str, InputError]:
        skipped: dict[str, InputError] = {}
        for scan, one in self.existing:
            read = functools.partial(
                table.read,
                outputs=one.outputs,
                domain=one.domain,
                max_memory_gb=reading.max_memory_gb,
            )
            skipped |= usable_cases.check_all(read, [scan], reading)
        return skipped

    def require_writable(self, table: VolumesTable, *, overwrite: bool) -> None:
        to_write = [one for ones in self.pending.values() for one in ones]
        if not overwrite:
            for one in to_write:
                one.outputs.require_unedited()
        require_writable(path for one in to_write for path in one.paths)
        table.require_writable(self.all_paths, overwrite=overwrite)


def _budget(chosen: Sequence[Organ], reading: ReadingConfig) -> MemoryBudget:
    networks = [(organ.predictor, organ.index) for organ in chosen]
    return MemoryBudget.of_process(networks, reading)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads scans once for several domains.

    Attributes:
      domains: domains to preprocess each scan for.
      modalities: modalities of the scans.
      reading: how scans are read.
      with_probabilities: whether probabilities are kept.
    """

    domains: tuple[Domain, ...]
    modalities: tuple[str, ...]
    reading: ReadingConfig
    with_probabilities: bool

    @property
    def _domain(self) -> Domain:
        return organs.scan_domain(self.domains, self.modalities)

    def check(self, scan: Scan, files: Sequence[ScanFiles]) -> Need:
        """Checks headers; returns the memory that the scan will take."""
        grid = case_files.check_headers(
            scan.paths, self._domain, **usable_cases.read_options(self.reading)
        )
        for path in (path for one in files for path in one.outputs.paths):
            label_map_files.require_format_for(grid, path)
        needs = [
            Need.of_scan(grid, domain, with_probabilities=self.with_probabilities)
            for domain in {
                preprocessing_key(d, self.modalities): d for d in self.domains
            }.values()
        ]
        # The others stay in memory while one is preprocessed or predicted.
        preparation = sum(need.preparation for need in needs)
        held = preparation - max(need.preparation for need in needs)
        return Need(preparation, held + max(need.prediction for need in needs))

    def read(
        self, needed: Mapping[Scan, Sequence[Domain]], scan: Scan
    ) -> PreparedOrgans:
        """Reads a scan and preprocesses it for the domains that it needs."""
        image = case_files.read_image(
            scan.paths, self._domain, **usable_cases.read_options(self.reading)
        )
        return prepare(
            image,
            needed[scan],
            self.modalities,
            with_probabilities=self.with_probabilities,
            max_memory_gb=self.reading.max_memory_gb,
        )


def warn_of_edited(existing: Sequence[Outputs]) -> int:
    """Warns of files that were edited since they were written; returns their number."""
    edited = [path for outputs in existing for path in outputs.edited()]
    for path in edited:
        logging.warning("%s: edited since it was predicted; left unchanged", path)
    return len(edited)
