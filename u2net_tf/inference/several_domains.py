"""Label maps of several domains of the same scans, each of which is read once.

Either a label map of all domains, in which those that come first in the order of
priority hide others, with a table that says which value is what; or the files of each
domain in a folder of its own, as if that alone had been predicted.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from u2net_tf.config.inference import ReadingConfig
from u2net_tf.inference import label_maps, organs, usable_cases
from u2net_tf.inference.label_maps import Report
from u2net_tf.inference.label_table import Overlap
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.organs import Organ
from u2net_tf.inference.outputs import require_writable
from u2net_tf.inference.prepared_organs import PreparedOrgans, prepare, shared
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.inference.several_outputs import (
    FilesOfEach,
    FilesOfScan,
    Layout,
    MergedFiles,
)
from u2net_tf.inference.volumes_table import VolumesTable
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization import figures
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import label_map_files


@dataclasses.dataclass(frozen=True)
class SeveralReport(Report):
    """What `predict_domains` did; label maps that were left alone are scans here.

    Attributes:
      overlaps: scan -> where its domains overlap, of the scans that were predicted
        now; none where each domain has a file.
    """

    overlaps: dict[str, tuple[Overlap, ...]] = dataclasses.field(default_factory=dict)


def predict_domains(
    chosen: Sequence[Organ],
    found: FoundScans,
    output_dir: pathlib.Path,
    *,
    modalities: Sequence[str],
    reading: ReadingConfig,
    priority: Sequence[str] = (),
    separate_files: bool = False,
    save_probabilities: bool = False,
    preview: bool = False,
    output_format: str = "input",
    volumes_csv: pathlib.Path | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> SeveralReport:
    """Writes label maps of several domains, except those that are there already.

    Args:
      chosen: the domains, in the order of the values that they get.
      found: the scans.
      output_dir: folder to write to.
      modalities: of the scans; see `organs.scan_modalities`.
      reading: as for `label_maps.predict_scans`.
      priority: see `organs.order_by_priority`.
      separate_files: whether each domain has files of its own, in a folder of its name.
      save_probabilities: whether to write them beside each label map of one domain.
      preview: whether to write a picture beside each label map.
      output_format: see `label_map_files.output_suffix`.
      volumes_csv: table of the volumes of the classes, as they are in the files.
      overwrite: predict all scans, and replace any file.
      executor: reads and preprocesses the scans; None for threads of this process.
      progress: shows how many scans are done.

    Raises:
      InputError: as `label_maps.predict_scans`, and if a label map cannot hold the
        classes of all domains.
      StoppedError: if a package is missing that the format or the picture needs.
    """
    layout = _layout(chosen, priority, separate_files)
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
    num_edited = label_maps.warn_of_edited([one.outputs for _, one in work.existing])
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
            overlaps[scan.name] = layout.write(scan, content, files_of_scan, table)
            # Freed before the next one is waited for.
            del content
    table.write()
    num_existing = len(found.scans) - len(work.pending)
    return SeveralReport(
        num_existing, num_edited, dict(sorted(skipped.items())), overlaps
    )


def _layout(
    chosen: Sequence[Organ], priority: Sequence[str], separate_files: bool
) -> Layout:
    kind = FilesOfEach if separate_files else MergedFiles
    order = organs.order_by_priority([organ.name for organ in chosen], priority)
    return kind(chosen, order)


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
