"""Predicts the cases of a split from their raw scans and scores them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor

import numpy as np

from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.scored_case import Score, ScoredCase
from u2net_tf.evaluation.tables import CaseScore
from u2net_tf.inference import usable_cases
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.outputs import require_writable
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import PreparedScan, prepare_scan
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Region
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import case_labels, images, msd
from u2net_tf.volumes.grid import Volume


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


def require_cases(cases: Iterable[Sequence[object]], split: str) -> None:
    """Checks that there are cases to score.

    Args:
      cases: the cases of each domain.
      split: the split to score.

    Raises:
      InputError: if no domain has any.
    """
    if not any(cases):
        raise InputError(
            "`split`", expected=f"cases in {split!r}", received="none in the plan"
        )


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
    regions: Sequence[Region] = (),
    reading: ReadingConfig,
    surface_tolerance_mm: float | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> DomainScores:
    """Predicts and scores cases on the grid of their images.

    Label maps are written to `predictions/DOMAIN/CASE.nii.gz`. A case that was already
    predicted with the same files, model and settings is not predicted again unless its
    label map was edited.

    Args:
      predictor: the model.
      index: index of the domain.
      cases: images and reference label maps.
      output_dir: folder to write to.
      regions: regions to score in addition to the classes.
      reading: maximum number of cases that are read and preprocessed ahead (see
        `parallel.map_ahead`), how they are read, the memory limit, and whether an
        unusable case stops the run.
      surface_tolerance_mm: tolerance of the surface Dice; None if surfaces are not
        compared.
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
        case: ScoredCase(
            predictor, index, case, output_dir, reading, surface_tolerance_mm, regions
        )
        for case in cases
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
    rescored = frozenset(
        case.name for case in pending if not overwrite and jobs[case].is_predicted()
    )
    require_writable(path for case in pending for path in jobs[case].outputs.all_paths)
    skipped: dict[str, InputError] = {}
    budget = MemoryBudget.of_process([(predictor, index)], reading)
    reading = budget.of_scans(reading)
    reading = budget.of_workers(reading, _needs(domain, pending))
    # None of these refers to the predictor, since another process may read.
    read = functools.partial(
        budget.call, functools.partial(_read_case, domain, reading, rescored)
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
    with_surfaces = surface_tolerance_mm is not None
    return DomainScores(
        [
            case_score(domain, case, scores[case], with_surfaces=with_surfaces)
            for case in cases
            if case in scores
        ],
        skipped,
    )


def case_score(
    domain: Domain, case: msd.Case, score: Score, *, with_surfaces: bool
) -> CaseScore:
    """Returns a score, without surfaces unless they were requested this time.

    Args:
      domain: domain of the case.
      case: the case.
      score: its score.
      with_surfaces: whether surfaces were requested.
    """
    surfaces = (score.hd95_mm, score.surface_dice) if with_surfaces else ()
    return CaseScore(
        domain.name, case.name, score.dice, score.false_positive_ml, *surfaces
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
    domain: Domain, reading: ReadingConfig, rescored: Collection[str], case: msd.Case
) -> tuple[PreparedScan | Volume, np.ndarray]:
    """Returns the scan and the class indices of its reference.

    The scan is preprocessed unless only its existing label map is scored.
    """
    limit = reading.max_memory_gb
    image = case_files.read_image(
        case.image_paths, domain, **usable_cases.read_options(reading)
    )
    reference = case_labels.read_labels(
        case.label_path, image.grid, domain, max_memory_gb=limit
    )
    if case.name in rescored:
        return image, reference
    return prepare_scan(image, domain, max_memory_gb=limit), reference
