"""The label map and the score of a case, as kept in files."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from u2net_tf import migrations, schema, work_log
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.comparison import compare
from u2net_tf.file_format import FileFormat
from u2net_tf.inference.label_map_writing import write_label_map
from u2net_tf.inference.outputs import LABEL_MAP, Outputs
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import PreparedScan
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Region
from u2net_tf.schema import MaybeNan, Text
from u2net_tf.volumes import msd
from u2net_tf.volumes.case_labels import read_labels
from u2net_tf.volumes.grid import Volume


@schema.model
class Score:
    """Score of one case, as stored in a file.

    Attributes:
      key: key of what the label map was predicted from or, for a label map that existed
        already, of its file and the reference.
      dice: label or region -> Dice; NaN if neither mask contains it.
      false_positive_ml: label or region -> predicted volume, for those that the
        reference does not contain.
      surface_tolerance_mm: tolerance of the surface Dice; None if surfaces were not
        compared.
      hd95_mm: label or region -> see `SurfaceScore`; empty if surfaces were not
        compared.
      surface_dice: the same.
      regions: the regions that were scored.
    """

    key: Text
    dice: dict[str, MaybeNan]
    false_positive_ml: dict[str, float]
    surface_tolerance_mm: float | None = None
    hd95_mm: dict[str, MaybeNan] = dataclasses.field(default_factory=dict)
    surface_dice: dict[str, MaybeNan] = dataclasses.field(default_factory=dict)
    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        for name in ("dice", "surface_dice"):
            for label, value in getattr(self, name).items():
                if not (math.isnan(value) or 0 <= value <= 1):
                    raise InputError(
                        f"{name}.{label}",
                        expected="a number from 0 to 1",
                        received=value,
                    )
        distances = {k: v for k, v in self.hd95_mm.items() if not math.isnan(v)}
        for name, values in (
            ("false_positive_ml", self.false_positive_ml),
            ("hd95_mm", distances),
        ):
            for label, value in values.items():
                if not 0 <= value < math.inf:
                    raise InputError(
                        f"{name}.{label}",
                        expected="a finite number of at least 0",
                        received=value,
                    )

    def covers(
        self,
        domain: Domain,
        regions: tuple[Region, ...],
        surface_tolerance_mm: float | None,
    ) -> bool:
        """Returns whether it has all classes, these regions and these surfaces."""
        # A file that was edited may lack a class.
        names = {label.name for label in domain.labels[1:]}
        names |= {region.name for region in regions}
        covered = self.dice.keys() == names >= self.false_positive_ml.keys()
        covered &= self.regions == regions
        if surface_tolerance_mm is not None:
            covered &= self.surface_tolerance_mm == surface_tolerance_mm
            covered &= self.hd95_mm.keys() == names
            covered &= self.surface_dice.keys() == names
        return covered


SCORE = FileFormat(
    name="a score",
    made_by="python -m u2net_tf.evaluate",
    kind=Score,
    oldest=0,
    upgrades=(
        migrations.unversioned,
        migrations.score_with_volumes,
        migrations.score_with_surfaces,
        migrations.score_with_regions,
    ),
)


class ScoredCase:
    """A case to score, its label map and its score.

    Args:
      predictor: the model.
      index: index of the domain.
      case: image and reference.
      output_dir: folder of the label map and the score.
      reading: how scans are read.
      surface_tolerance_mm: tolerance of the surface Dice; None if surfaces are not
        compared.
      regions: regions to score in addition to the classes.
    """

    def __init__(
        self,
        predictor: Predictor,
        index: int,
        case: msd.Case,
        output_dir: pathlib.Path,
        reading: ReadingConfig,
        surface_tolerance_mm: float | None,
        regions: Sequence[Region],
    ):
        self._regions = tuple(regions)
        self._tolerance_mm = surface_tolerance_mm
        self._predictor = predictor
        self._index = index
        self._domain = predictor.spec.plan.domains[index]
        folder = output_dir / "predictions" / self._domain.name
        label_map = folder / f"{case.name}.nii.gz"
        self._score_path = (
            output_dir / ".scores" / self._domain.name / f"{case.name}.json"
        )
        self._key = predictor.key(
            index,
            case.paths,
            resample_modalities=reading.resample_modalities
            and len(case.image_paths) > 1,
        )
        paths = {LABEL_MAP: label_map}
        self.outputs = Outputs(folder, case.name, paths, self._key)
        content = self._read_score()
        if content and migrations.is_label_map_as_scored(label_map, self._score_path):
            self.outputs.adopt(content.key)

    def known_score(self) -> Score | None:
        """Returns the score if it is that of the current label map, otherwise None."""
        if not self.is_predicted():
            return None
        content = self._read_score()
        if content is None or content.key != self._key:
            return None
        is_complete = content.covers(self._domain, self._regions, self._tolerance_mm)
        return content if is_complete else None

    def is_predicted(self) -> bool:
        """Returns whether the label map exists and is neither outdated nor edited."""
        return self.outputs.is_complete() and not self.outputs.edited()

    def score(self, scan: PreparedScan | Volume, reference: np.ndarray) -> Score:
        """Compares the case with its reference.

        Args:
          scan: the scan, preprocessed for the domain, to predict it; its image is
            released. Or the scan as it was read, to use the existing label map.
          reference: (z, y, x) class indices, or the domain's `ignore_index`.

        Raises:
          InputError: if the existing label map is missing or was edited.
        """
        if isinstance(scan, PreparedScan):
            raw = scan.raw
            classes = write_label_map(self._predictor, self._index, scan, self.outputs)
        else:
            raw = scan
            self.outputs.require_unedited()
            classes = read_labels(self.outputs.label_map, raw.grid, self._domain)
        score = Score(
            key=self._key,
            surface_tolerance_mm=self._tolerance_mm,
            regions=self._regions,
            **compare(
                reference,
                classes,
                raw.grid,
                self._domain,
                self._regions,
                surface_tolerance_mm=self._tolerance_mm,
            ),
        )
        work_log.write_record(self._score_path, SCORE, score)
        return score

    def _read_score(self) -> Score | None:
        return work_log.read_record(self._score_path, SCORE)
