"""Predicts the cases of a split from their raw scans and scores them."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from u2net_tf import migrations, schema, work_log
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.metrics import dice, false_positive_ml
from u2net_tf.evaluation.tables import CaseScore
from u2net_tf.file_format import FileFormat
from u2net_tf.inference import usable_cases
from u2net_tf.inference.label_map_writing import write_label_map
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.outputs import LABEL_MAP, Outputs, require_writable
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import PreparedScan, prepare_scan
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.schema import MaybeNan, Text
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import images, msd
from u2net_tf.volumes.class_volumes import voxel_volume_ml


@dataclasses.dataclass(frozen=True)
class DomainScores:
    """Result of `score_domain`.

    Attributes:
      scores: scores of the cases that could be used, in order.
      skipped: name -> reason for the others.
    """

    scores: list[CaseScore]
    skipped: dict[str, InputError]


def find_cases(domain: Domain, split: str, raw_dir: str | None) -> list[msd.Case]:
    """Returns the cases of a split with the expected paths of their files.

    Args:
      domain: defines the split and, unless `raw_dir` is given, the folder.
      split: "train", "validation" or "test".
      raw_dir: folder with a folder per domain, if the scans were moved.

    Raises:
      InputError: if the dataset, or a case in it, is missing.
    """
    dataset = msd.read_domain(domain, raw_dir)
    return [dataset.case(name) for name in domain.cases(split)]


def check_headers(
    domain: Domain, cases: Sequence[msd.Case], reading: ReadingConfig
) -> dict[str, InputError]:
    """Returns name -> reason for cases that are missing or have unusable headers.

    Raises:
      InputError: if a case is unusable, unless such cases are skipped.
    """
    check = functools.partial(_check_case, domain, reading)
    return usable_cases.check_all(check, cases, reading)


def _check_case(domain: Domain, reading: ReadingConfig, case: msd.Case) -> None:
    options = usable_cases.read_options(reading)
    case_files.check_headers(case.image_paths, domain, **options)
    images.load_header(case.label_path, max_memory_gb=reading.max_memory_gb)


def score_domain(
    predictor: Predictor,
    index: int,
    cases: Sequence[msd.Case],
    output_dir: pathlib.Path,
    *,
    reading: ReadingConfig,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> DomainScores:
    """Predicts and scores cases on the grid of their images.

    Label maps are written to `predictions/DOMAIN/CASE.nii.gz`. A case that was already
    scored with the same files, model and settings is not predicted again unless its
    label map was edited.

    Args:
      predictor: the model.
      index: index of the domain.
      cases: images and reference label maps.
      output_dir: folder to write to.
      reading: maximum number of cases that are read and preprocessed ahead (see
        `parallel.map_ahead`), how they are read, the memory limit, and whether an
        unusable case stops the run.
      overwrite: predict and score all cases again, and replace any label map.
      executor: reads and preprocesses the cases; None for threads of this process.
      progress: shows the progress over cases.

    Raises:
      InputError: before the first case is predicted, if a label map cannot be written,
        or would replace one that was not written here or was edited since; or if a case
        cannot be used or its label map was edited in the meantime, unless such cases
        are skipped.
    """
    domain = predictor.spec.plan.domains[index]
    jobs = {
        case: _ScoringJob(predictor, index, case, output_dir, reading) for case in cases
    }
    scores: dict[msd.Case, Score] = {}
    if not overwrite:
        for case, job in jobs.items():
            score = job.known_score()
            if score is not None:
                scores[case] = score
    pending = [case for case in jobs if case not in scores]
    if not overwrite:
        for case in pending:
            jobs[case].outputs.require_unedited()
    require_writable(path for case in pending for path in jobs[case].outputs.all_paths)
    skipped: dict[str, InputError] = {}
    budget = MemoryBudget.of_process(predictor, [index], reading)
    reading = budget.of_scans(reading)
    reading = budget.of_workers(reading, _needs(domain, pending))
    # None of these refers to the predictor, since another process may read.
    read = functools.partial(
        budget.call, functools.partial(_read_case, domain, reading)
    )
    bar = progress(desc=domain.name, total=len(jobs), initial=len(scores), unit="case")
    with usable_cases.read_ahead(
        read, pending, reading, skipped=skipped, bar=bar, executor=executor
    ) as contents:
        for case, content in contents:
            with usable_cases.skipped_if_unusable(case.name, skipped, reading):
                scores[case] = jobs[case].score(*content)
            # Freed before waiting for the next ones.
            del content
    return DomainScores(
        [
            CaseScore(
                domain.name,
                case.name,
                scores[case].dice,
                scores[case].false_positive_ml,
            )
            for case in cases
            if case in scores
        ],
        skipped,
    )


def _needs(domain: Domain, cases: Sequence[msd.Case]) -> list[Need]:
    """Returns the memory needs of cases; 0 for those that cannot be read."""
    needs = []
    for case in cases:
        try:
            grid = images.load_header(case.image_paths[0]).grid
        except (InputError, OSError):
            needs.append(Need())
        else:
            needs.append(Need.of_scan(grid, domain))
    return needs


def _read_case(
    domain: Domain, reading: ReadingConfig, case: msd.Case
) -> tuple[PreparedScan, np.ndarray]:
    """Returns the preprocessed scan and the class indices of its reference."""
    limit = reading.max_memory_gb
    image = case_files.read_image(
        case.image_paths, domain, **usable_cases.read_options(reading)
    )
    reference = case_files.read_labels(
        case.label_path, image, domain, max_memory_gb=limit
    )
    return prepare_scan(image, domain, max_memory_gb=limit), reference


@schema.model
class Score:
    """Score of one case, as stored in a file.

    Attributes:
      key: key of what the label map was predicted from.
      dice: label -> Dice; NaN if neither mask contains the label.
      false_positive_ml: label -> predicted volume, for labels that the reference does
        not contain.
    """

    key: Text
    dice: dict[str, MaybeNan]
    false_positive_ml: dict[str, float]

    def __post_init__(self) -> None:
        for label, value in self.dice.items():
            if not (math.isnan(value) or 0 <= value <= 1):
                raise InputError(
                    f"dice.{label}", expected="a number from 0 to 1", received=value
                )
        for label, value in self.false_positive_ml.items():
            if not 0 <= value < math.inf:
                raise InputError(
                    f"false_positive_ml.{label}",
                    expected="a finite number of at least 0",
                    received=value,
                )


SCORE = FileFormat(
    name="a score",
    made_by="python -m u2net_tf.evaluate",
    kind=Score,
    oldest=0,
    upgrades=(migrations.unversioned, migrations.score_with_volumes),
)


class _ScoringJob:
    """A case to score, its label map and its score."""

    def __init__(
        self,
        predictor: Predictor,
        index: int,
        case: msd.Case,
        output_dir: pathlib.Path,
        reading: ReadingConfig,
    ):
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
        if not self.outputs.is_complete() or self.outputs.edited():
            return None
        content = self._read_score()
        if content is None or content.key != self._key:
            return None
        # A file that was edited may lack a class.
        names = {label.name for label in self._domain.labels[1:]}
        is_complete = content.dice.keys() == names >= content.false_positive_ml.keys()
        return content if is_complete else None

    def score(self, scan: PreparedScan, reference: np.ndarray) -> Score:
        """Predicts the case and compares it with its reference."""
        classes = write_label_map(self._predictor, self._index, scan, self.outputs)
        num_classes = self._domain.num_classes
        volumes = false_positive_ml(
            reference,
            classes,
            num_classes=num_classes,
            voxel_ml=voxel_volume_ml(
                scan.raw.grid, self._domain.preprocessing.spacing_source
            ),
        )
        volume_by_label = self._by_label(volumes)
        score = Score(
            key=self._key,
            dice=self._by_label(dice(reference, classes, num_classes=num_classes)),
            false_positive_ml={
                label: volume
                for label, volume in volume_by_label.items()
                if not math.isnan(volume)
            },
        )
        work_log.write_record(self._score_path, SCORE, score)
        return score

    def _by_label(self, values: np.ndarray) -> dict[str, float]:
        names = [label.name for label in self._domain.labels[1:]]
        return dict(zip(names, values.tolist(), strict=True))

    def _read_score(self) -> Score | None:
        return work_log.read_record(self._score_path, SCORE)
