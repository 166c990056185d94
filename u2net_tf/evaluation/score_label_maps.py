"""Scores label maps that exist already, such as those of several models or programs."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import Executor

from absl import logging

from u2net_tf import files, locks, machine, parallel, work_log
from u2net_tf.config.evaluation import ScoreConfig
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import label_map_folders, results, scoring, tables
from u2net_tf.evaluation.comparison import compare, comparison_bytes
from u2net_tf.evaluation.results import Evaluation
from u2net_tf.evaluation.scored_case import SCORE, Score
from u2net_tf.inference import outputs, usable_cases
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import images, msd
from u2net_tf.volumes.case_labels import read_labels
from u2net_tf.volumes.memory import fitting_workers
from u2net_tf.wording import first_few, quantity


@dataclasses.dataclass(frozen=True)
class _Job:
    """A label map to compare with its reference; sent to worker processes.

    Attributes:
      case: the scan, whose grid is used, and the reference.
      label_map: the label map; None if there is none.
      domain: the domain, with the regions to score.
      folders: the folders of predictions, for error messages.
      config: the settings.
    """

    case: msd.Case
    label_map: pathlib.Path | None
    domain: Domain
    folders: str
    config: ScoreConfig

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    def require_files(self) -> None:
        """Checks that the label map exists and all headers can be read.

        Raises:
          InputError: if not.
        """
        if self.label_map is None:
            raise InputError(
                self.folders, expected=f"a label map of {self.name}", received="none"
            )
        # Only the first image, as its grid is that of the case.
        for path in (self.case.image_path, self.case.label_path, self.label_map):
            images.load_header(path, max_memory_gb=self.config.max_memory_gb)

    def num_voxels(self) -> int:
        """Returns the number of voxels that are compared."""
        limit = self.config.max_memory_gb
        header = images.load_header(self.case.image_path, max_memory_gb=limit)
        return math.prod(header.grid.shape)

    def key(self) -> str:
        """Returns the key of the score; see `work_log.work_key`."""
        domain = self.domain
        assert self.label_map is not None
        paths = (self.case.image_path, self.case.label_path, self.label_map)
        settings = [
            "label map",
            [[label.name, *label.values] for label in domain.labels],
            domain.ignore_label,
            domain.preprocessing.spacing_source,
            domain.preprocessing.round_labels,
            domain.preprocessing.unknown_labels,
            *(str(path.resolve()) for path in paths),
        ]
        return work_log.work_key(settings, files.file_signatures(paths))

    def score(self) -> Score:
        """Compares the label map with its reference.

        Raises:
          InputError: if a file cannot be used.
        """
        key = self.key()
        domain, config = self.domain, self.config
        assert self.label_map is not None
        limit = config.max_memory_gb
        grid = images.load_header(self.case.image_path, max_memory_gb=limit).grid
        reference = read_labels(self.case.label_path, grid, domain, max_memory_gb=limit)
        prediction = read_labels(
            self.label_map, grid, domain, only_classes=True, max_memory_gb=limit
        )
        found = compare(
            reference,
            prediction,
            grid,
            domain,
            domain.regions,
            surface_tolerance_mm=config.surface_tolerance_mm,
        )
        return Score(
            key=key,
            surface_tolerance_mm=config.surface_tolerance_mm,
            regions=domain.regions,
            **found,
        )


def score_label_maps(
    config: ScoreConfig,
    *,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Scores label maps, and writes `dice.csv` and `summary.json`.

    Args:
      config: the settings.
      executor: compares the label maps; None for processes on this machine.
      progress: shows the progress over the cases of a domain.

    Raises:
      InputError: if an input cannot be used, unless it is a case that is skipped, or
        another run writes to the folder. A missing folder is detected before the first
        comparison.
      StoppedError: if a worker process is killed.
    """
    output_dir = pathlib.Path(config.output_dir)
    domains = _choose_domains(config)
    with locks.locked(output_dir):
        outputs.require_writable([output_dir / "dice.csv", output_dir / "summary.json"])
        _require_no_model_scores(output_dir / "summary.json")
        # Before the first comparison, which may be one of many.
        jobs = [
            _list_jobs(config, domain, is_only=len(domains) == 1) for domain in domains
        ]
        scoring.require_cases(jobs, config.split)
        scores: list[tables.CaseScore] = []
        skipped: dict[str, InputError] = {}
        for domain, of_domain in zip(domains, jobs, strict=True):
            found, unusable = _score_domain(
                config, domain, of_domain, executor=executor, progress=progress
            )
            scores += found
            skipped |= {f"{domain.name}/{name}": e for name, e in unusable.items()}
        results.require_scores(scores, skipped, "`predictions`")
        summary = tables.Summary(
            split=None if config.references else config.split,
            checkpoint=f"label maps in {', '.join(config.predictions)}",
            # Not None, which means that it was not recorded.
            checkpoint_hashes={},
            surface_tolerance_mm=config.surface_tolerance_mm,
            **results.summary_fields(scores, domains, skipped),
        )
        return results.write(output_dir, scores, summary, skipped)


def _require_no_model_scores(path: pathlib.Path) -> None:
    """Checks that a summary of `evaluate` would not be replaced."""
    try:
        summary = tables.SUMMARY.load(path)
    except InputError:
        # There is none, or a damaged one.
        return
    if summary.checkpoint_hashes != {}:
        raise InputError(
            "`output_dir`",
            expected="a folder without scores of a model",
            received=f"{path}, scores of {summary.checkpoint}",
        )


def _choose_domains(config: ScoreConfig) -> tuple[Domain, ...]:
    plan = load_plan(config.plan)
    names = config.domains
    if not names and len(plan.names) > 1:
        names = tuple(
            name
            for name in plan.names
            if any(pathlib.Path(each, name).is_dir() for each in config.predictions)
        )
        if not names:
            raise InputError(
                "`domains`",
                expected=f"the domain of the label maps: {first_few(plan.names)}",
                received="none, and no folder of such a name in "
                f"{', '.join(config.predictions)}",
            )
    chosen = plan.select(names).with_fold(config.fold).domains
    if config.references:
        _check_references(config, chosen)
    return chosen


def _check_references(config: ScoreConfig, chosen: Sequence[Domain]) -> None:
    """Checks that a folder of references does not contradict other settings."""
    if len(chosen) > 1:
        raise InputError(
            "`references`",
            expected="a single domain",
            received=first_few([domain.name for domain in chosen]),
        )
    for name in ("raw_dir", "split", "fold"):
        value = getattr(config, name)
        if value != ScoreConfig.settings()[name].default:
            raise InputError(
                f"`{name}`",
                expected="no value with `references`, whose cases are scored",
                received=value,
            )


def _list_jobs(config: ScoreConfig, domain: Domain, *, is_only: bool) -> list[_Job]:
    """Returns the cases to score; warns of label maps that belong to none of them."""
    if config.references:
        found = label_map_folders.list_label_maps(
            [pathlib.Path(config.references)], domain.name, flat=True
        )
        cases = [msd.Case(name, (path,), path) for name, path in found.items()]
        every_case: Sequence[msd.Case] = cases
        of_what = f"in {config.references}"
    else:
        dataset = msd.read_domain(domain, config.raw_dir)
        cases = [dataset.case(name) for name in domain.cases(config.split)]
        every_case = dataset.cases
        of_what = f"of the split {config.split}"
    folders = [pathlib.Path(each) for each in config.predictions]
    label_maps = label_map_folders.list_label_maps(folders, domain.name, flat=is_only)
    matched = label_map_folders.match_label_maps(label_maps, cases, every_case)
    used = set(matched.values())
    others = [path for path in label_maps.values() if path not in used]
    if others:
        logging.warning(
            "%s: %s of %s, such as %s, belong to no case %s and are not scored",
            ", ".join(config.predictions),
            quantity(len(others), "label map"),
            domain.name,
            others[0].name,
            of_what,
        )
    where = ", ".join(config.predictions)
    return [_Job(case, path, domain, where, config) for case, path in matched.items()]


def _score_domain(
    config: ScoreConfig,
    domain: Domain,
    jobs: Sequence[_Job],
    *,
    executor: Executor | None,
    progress: Progress,
) -> tuple[list[tables.CaseScore], dict[str, InputError]]:
    """Returns the scores in the order of the cases, and why others have none."""
    reading = ReadingConfig(on_bad_case=config.on_bad_case)
    skipped = usable_cases.check_all(_Job.require_files, jobs, reading)
    usable = [job for job in jobs if job.name not in skipped]
    folder = pathlib.Path(config.output_dir, ".scores", domain.name)
    paths = {job: folder / f"{job.name}.json" for job in usable}
    scores: dict[str, Score] = {}
    for job, path in paths.items():
        known = work_log.read_record(path, SCORE)
        if (
            known is not None
            and known.key == job.key()
            and known.covers(domain, domain.regions, config.surface_tolerance_mm)
        ):
            scores[job.name] = known
    pending = [job for job in usable if job.name not in scores]
    num_workers = config.num_workers or machine.num_cores()
    if executor is None:
        num_workers = fitting_workers(
            num_workers,
            [comparison_bytes(job.num_voxels()) for job in pending],
            config.max_memory_gb,
            activity="comparing label maps",
        )
    reading = reading.model_copy(update={"num_workers": num_workers})
    bar = progress(
        desc=domain.name, total=len(usable), initial=len(scores), unit="case"
    )
    with (
        parallel.workers(executor, num_workers, len(pending)) as pool,
        usable_cases.read_ahead(
            _Job.score, pending, reading, skipped=skipped, bar=bar, executor=pool
        ) as found,
    ):
        for job, score in found:
            work_log.write_record(paths[job], SCORE, score)
            scores[job.name] = score
    with_surfaces = config.surface_tolerance_mm is not None
    ordered = [
        scoring.case_score(
            domain, job.case, scores[job.name], with_surfaces=with_surfaces
        )
        for job in usable
        if job.name in scores
    ]
    return ordered, skipped
