"""Label maps of scans as files: each scan is read, predicted and saved once."""

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
from u2net_tf.inference.output_layouts import FilesOfOne, FilesOfScan, Layout
from u2net_tf.inference.outputs import Outputs, require_writable
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_organs import PreparedOrgans, prepare, shared
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.inference.volumes_table import VolumesTable
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization import figures
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import label_map_files


@dataclasses.dataclass(frozen=True)
class Report:
    """What was done with scans.

    Attributes:
      num_existing: scans that had been predicted before, and were left alone.
      num_edited: files of these that were edited since.
      skipped: name -> reason of the scans that could not be used.
      overlaps: scan -> where its domains overlap, of the scans that were predicted
        now into a label map of several domains.
    """

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
    """Writes the label maps of one domain, except of scans that were predicted before.

    Args:
      predictor: the model.
      index: index of the domain.
      found: the scans.
      output_dir: folder to write to.
      **options: of `predict_files`.

    Raises:
      InputError: as `predict_files` does.
      StoppedError: as `predict_files` does.
    """
    organ = Organ(predictor, index)
    return predict_files(
        FilesOfOne([organ]),
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
      layout: which files there are of a scan.
      chosen: the domains.
      found: the scans.
      output_dir: folder to write to.
      modalities: of the scans; see `organs.scan_modalities`.
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
    _require_formats(layout, found, output_format, preview)
    files = layout.files(
        found.scans,
        output_dir,
        resample_modalities=reading.resample_modalities,
        save_probabilities=save_probabilities,
        preview=preview,
        output_format=output_format,
    )
    budget = _budget(chosen, reading)
    reading = budget.of_scans(reading)
    work = _Work.of_files(files, overwrite=overwrite)
    work.require_writable(overwrite=overwrite)
    num_edited = warn_of_edited([one.outputs for _, one in work.existing])
    table = layout.table(volumes_csv)
    table.require_writable(work.all_paths, overwrite=overwrite)
    work.read_volumes(table, reading)
    skipped = usable_cases.leave_out_all(found.incomplete, reading)
    domains = tuple(organ.domain for organ in chosen)
    reader = _Reader(domains, tuple(modalities), reading, save_probabilities)
    needs: dict[Scan, Need] = {}

    def check(scan: Scan) -> None:
        needs[scan] = reader.check(scan, work.pending[scan])

    skipped |= usable_cases.check_all(
        functools.partial(budget.call, check), list(work.pending), reading
    )
    # None of these refers to a predictor: another process may read.
    needed = {scan: layout.needed(work.pending[scan]) for scan in needs}
    overlaps = {}
    with usable_cases.read_ahead(
        functools.partial(budget.call, functools.partial(reader.read, needed)),
        list(needs),
        budget.of_workers(reading, list(needs.values())),
        skipped=skipped,
        bar=progress(desc="predicting", total=len(needs), unit="case"),
        executor=executor,
    ) as contents:
        for scan, content in contents:
            files_of_scan = work.pending[scan]
            overlaps[scan.name] = layout.write(
                scan, content, files_of_scan, table, num_scans=len(found.scans)
            )
            # Freed before the next one is waited for.
            del content
    table.write()
    num_existing = len(found.scans) - len(work.pending)
    return Report(num_existing, num_edited, dict(sorted(skipped.items())), overlaps)


def _require_formats(
    layout: Layout, found: FoundScans, output_format: str, preview: bool
) -> None:
    firsts = [scan.paths[0] for scan in found.scans]
    for domain in layout.written:
        label_map_files.require_format(output_format, firsts, domain)
    if preview:
        figures.require_matplotlib()


@dataclasses.dataclass(frozen=True)
class _Work:
    """Which files are there, and which are to be written.

    Attributes:
      files: of each scan.
      pending: of these, those to write, of the scans that have any.
    """

    files: Mapping[Scan, Sequence[FilesOfScan]]
    pending: Mapping[Scan, Sequence[FilesOfScan]]

    @classmethod
    def of_files(
        cls, files: Mapping[Scan, Sequence[FilesOfScan]], *, overwrite: bool
    ) -> _Work:
        pending = {
            scan: [one for one in ones if overwrite or not one.is_complete()]
            for scan, ones in files.items()
        }
        return cls(files, {scan: ones for scan, ones in pending.items() if ones})

    @property
    def existing(self) -> list[tuple[Scan, FilesOfScan]]:
        return [
            (scan, one)
            for scan, ones in self.files.items()
            for one in ones
            if one not in self.pending.get(scan, ())
        ]

    @property
    def all_paths(self) -> list[pathlib.Path]:
        """The scans, and every file that is written for them."""
        outputs = [one for ones in self.files.values() for one in ones]
        return [
            *(path for scan in self.files for path in scan.paths),
            *(path for one in outputs for path in one.paths),
        ]

    def read_volumes(self, table: VolumesTable, reading: ReadingConfig) -> None:
        for scan, one in self.existing:
            table.read(
                scan, one.outputs, one.domain, max_memory_gb=reading.max_memory_gb
            )

    def require_writable(self, *, overwrite: bool) -> None:
        to_write = [one for ones in self.pending.values() for one in ones]
        if not overwrite:
            for one in to_write:
                one.outputs.require_unedited()
        require_writable(path for one in to_write for path in one.paths)


def _budget(chosen: Sequence[Organ], reading: ReadingConfig) -> MemoryBudget:
    """That of the domain whose network takes most."""
    budgets = [
        MemoryBudget.of_process(organ.predictor, [organ.index], reading)
        for organ in chosen
    ]
    return max(budgets, key=lambda budget: budget.taken_gb)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads scans once for several domains.

    Attributes:
      domains: the domains.
      modalities: of the scans.
      reading: how.
      with_probabilities: whether these are kept.
    """

    domains: tuple[Domain, ...]
    modalities: tuple[str, ...]
    reading: ReadingConfig
    with_probabilities: bool

    @property
    def _domain(self) -> Domain:
        return organs.scan_domain(self.domains, self.modalities)

    def check(self, scan: Scan, files: Sequence[FilesOfScan]) -> Need:
        """Checks headers; what the scan will take of the memory."""
        grid = case_files.check_headers(
            scan.paths, self._domain, **usable_cases.read_options(self.reading)
        )
        for path in (path for one in files for path in one.outputs.paths):
            label_map_files.require_format_for(grid, path)
        needs = [
            Need.of_scan(grid, domain, with_probabilities=self.with_probabilities)
            for domain in {shared(d, self.modalities): d for d in self.domains}.values()
        ]
        # Those of all but one are held while that is prepared or predicted.
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
    """Names the files that were edited since; returns how many there are."""
    edited = [path for outputs in existing for path in outputs.edited()]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    return len(edited)
