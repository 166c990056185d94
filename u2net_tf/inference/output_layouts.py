"""Layouts of the output: the files of each scan for one or several domains."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

from u2net_tf import work_log
from u2net_tf.inference import label_map_writing, outputs
from u2net_tf.inference.label_table import (
    LabelTable,
    Overlap,
    merged_domain,
    number_classes,
    write_label_table,
)
from u2net_tf.inference.merging import LabelMapMerger
from u2net_tf.inference.organs import Organ, channels_of
from u2net_tf.inference.output_paths import paths_of_outputs
from u2net_tf.inference.outputs import Outputs
from u2net_tf.inference.prepared_organs import PreparedOrgans
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.inference.volumes_table import VolumesTable
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.class_volumes import voxel_volume_ml
from u2net_tf.wording import escape_controls


@dataclasses.dataclass(frozen=True)
class ScanFiles:
    """Files of a scan that are written together.

    Attributes:
      outputs: the files.
      domain: defines the classes of the label map.
      organs: the domains that are predicted for them.
    """

    outputs: Outputs
    domain: Domain
    organs: tuple[Organ, ...]

    def is_complete(self) -> bool:
        """See `Outputs`."""
        return self.outputs.is_complete()

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The files and their record."""
        return self.outputs.all_paths


class Layout(Protocol):
    """How the label maps of one or several domains are stored.

    Attributes:
      written: a domain with the classes of each label map of a scan.
    """

    written: Sequence[Domain]

    def files(
        self,
        found: FoundScans,
        output_dir: pathlib.Path,
        *,
        modalities: Sequence[str],
        resample_modalities: bool,
        **options: Any,
    ) -> dict[Scan, list[ScanFiles]]:
        """Returns the files of each scan.

        Args:
          found: scans to predict.
          output_dir: folder to write to.
          modalities: modalities of the scans.
          resample_modalities: see `ReadingConfig`.
          **options: options of `paths_of_outputs`.

        Raises:
          InputError: see `paths_of_outputs`.
        """
        ...

    def table(self, path: pathlib.Path | None) -> VolumesTable:
        """Returns the table of volumes."""
        ...

    def needed(self, pending: Sequence[ScanFiles]) -> list[Domain]:
        """Returns the domains that must be predicted to write files."""
        return [organ.domain for one in pending for organ in one.organs]

    def write(
        self,
        scan: Scan,
        content: PreparedOrgans,
        pending: Sequence[ScanFiles],
        table: VolumesTable,
        *,
        num_scans: int,
    ) -> tuple[Overlap, ...]:
        """Predicts and writes files of a scan; returns the overlaps of domains.

        Args:
          scan: the scan to predict.
          content: its preprocessed images.
          pending: the files to write.
          table: table to which the volumes of the classes are added.
          num_scans: see `Predictor.predict_prepared`. Includes scans that are already
            done, so that a resumed run predicts the same.
        """
        ...


class SeparateFiles(Layout):
    """Separate files for each domain, in a folder with its name.

    Args:
      organs: the domains.
    """

    def __init__(self, organs: Sequence[Organ]):
        self._organs = organs
        self.written = [organ.domain for organ in organs]

    def files(
        self,
        found: FoundScans,
        output_dir: pathlib.Path,
        *,
        modalities: Sequence[str],
        resample_modalities: bool,
        **options: Any,
    ) -> dict[Scan, list[ScanFiles]]:
        """See `Layout`."""
        files: dict[Scan, list[ScanFiles]] = {scan: [] for scan in found.scans}
        for organ in self._organs:
            folder = self._folder(output_dir, organ)
            paths = paths_of_outputs(found, folder, **options)
            for scan in found.scans:
                key = _key(organ, scan, modalities, resample_modalities)
                one = Outputs(folder, scan.name, paths[scan], key)
                files[scan].append(ScanFiles(one, organ.domain, (organ,)))
        return files

    def _folder(self, output_dir: pathlib.Path, organ: Organ) -> pathlib.Path:
        return output_dir / organ.name

    def table(self, path: pathlib.Path | None) -> VolumesTable:
        """See `Layout`."""
        return VolumesTable(path)

    def write(
        self,
        scan: Scan,
        content: PreparedOrgans,
        pending: Sequence[ScanFiles],
        table: VolumesTable,
        *,
        num_scans: int,
    ) -> tuple[Overlap, ...]:
        """See `Layout`."""
        for one in pending:
            (organ,) = one.organs
            classes = label_map_writing.write_label_map(
                organ.predictor,
                organ.index,
                content.by_domain[organ.name],
                one.outputs,
                num_scans=num_scans,
            )
            table.add(scan.name, classes, content.raw.grid, organ.domain)
        return ()


class SingleDomainFiles(SeparateFiles):
    """Files of one domain."""

    def _folder(self, output_dir: pathlib.Path, organ: Organ) -> pathlib.Path:
        return output_dir


class MergedFiles(Layout):
    """One label map of all domains, with a table of its values.

    Args:
      organs: the domains, in the order of the values of their classes.
      priority: their names, starting with the one that is never hidden.

    Raises:
      InputError: if there are more classes than a label map can have.
    """

    def __init__(self, organs: Sequence[Organ], priority: Sequence[str]):
        domains = [organ.domain for organ in organs]
        self._rows = number_classes(domains)
        self._domain = merged_domain(domains, self._rows)
        self._priority = tuple(priority)
        by_name = {organ.name: organ for organ in organs}
        self._organs = tuple(by_name[name] for name in priority)
        self.written = [self._domain]

    def files(
        self,
        found: FoundScans,
        output_dir: pathlib.Path,
        *,
        modalities: Sequence[str],
        resample_modalities: bool,
        **options: Any,
    ) -> dict[Scan, list[ScanFiles]]:
        """See `Layout`."""
        paths = paths_of_outputs(found, output_dir, label_table=True, **options)
        rows = [[row.domain, row.class_name] for row in self._rows]
        files = {}
        for scan in found.scans:
            keys = [
                _key(organ, scan, modalities, resample_modalities)
                for organ in self._organs
            ]
            key = work_log.work_key(["merged", *keys, rows], [])
            one = Outputs(output_dir, scan.name, paths[scan], key)
            files[scan] = [ScanFiles(one, self._domain, self._organs)]
        return files

    def table(self, path: pathlib.Path | None) -> VolumesTable:
        """See `Layout`."""
        return VolumesTable(
            path, {row.name: (row.domain, row.class_name) for row in self._rows}
        )

    def write(
        self,
        scan: Scan,
        content: PreparedOrgans,
        pending: Sequence[ScanFiles],
        table: VolumesTable,
        *,
        num_scans: int,
    ) -> tuple[Overlap, ...]:
        """See `Layout`."""
        (one,) = pending
        depth, height, width = content.raw.data.shape[1:]
        merger = LabelMapMerger((depth, height, width), self._values())
        for organ in self._organs:
            prediction = organ.predictor.predict_prepared(
                content.by_domain.pop(organ.name),
                organ.index,
                num_scans=num_scans,
            )
            merger.add(organ.name, prediction.classes)
            del prediction
        overlaps = self._overlaps(content, merger)
        one.outputs.begin()
        path = one.outputs.path(outputs.LABEL_TABLE)
        assert path is not None  # `files` requests it
        case = escape_controls(scan.name)
        write_label_table(path, LabelTable(case, self._rows, self._priority, overlaps))
        label_map_writing.save_classes(
            content.raw, merger.classes, self._domain, one.outputs
        )
        table.add(scan.name, merger.classes, content.raw.grid, self._domain)
        return overlaps

    def _values(self) -> dict[str, list[int]]:
        values: dict[str, list[int]] = {name: [0] for name in self._priority}
        for row in self._rows:
            values[row.domain].append(row.value)
        return values

    def _overlaps(
        self, content: PreparedOrgans, merger: LabelMapMerger
    ) -> tuple[Overlap, ...]:
        source = self._domain.preprocessing.spacing_source
        voxel_ml = voxel_volume_ml(content.raw.grid, source)
        return tuple(
            Overlap(domain, hidden, voxels, round(voxels * voxel_ml, 6))
            for (domain, hidden), voxels in merger.overlaps.items()
        )


def _key(
    organ: Organ, scan: Scan, modalities: Sequence[str], resample_modalities: bool
) -> str:
    return organ.predictor.key(
        organ.index,
        scan.paths,
        channels=channels_of(organ.domain, modalities),
        resample_modalities=resample_modalities and len(scan.paths) > 1,
    )
