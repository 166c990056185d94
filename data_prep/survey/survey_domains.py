"""Examines the cases of several domains in parallel; a rerun resumes."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from absl import logging

from data_prep.config import SurveyConfig
from data_prep.survey import draw_pictures, survey_file
from data_prep.survey.case_memory import workers_for
from data_prep.survey.compare_cases import domain_warnings, with_duplicate_faults
from data_prep.survey.examine_case import CaseFacts, SurveyJob, examine_case
from data_prep.survey.survey_file import DomainFacts
from u2net_tf import files, locks, migrations, parallel, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.preprocessing import SpacingSource
from u2net_tf.progress import Progress, silent
from u2net_tf.schema import Text
from u2net_tf.volumes import msd
from u2net_tf.volumes.msd import Dataset
from u2net_tf.work_log import Log

LOG_NAME = ".survey.partial.jsonl"
THUMBNAILS_NAME = ".survey.partial.pictures"


@schema.model
class ExaminedCase:
    """A line of the log of an unfinished survey.

    Attributes:
      key: `SurveyJob.key`.
      facts: the examined case.
    """

    key: Text
    facts: CaseFacts


EXAMINED_CASE = FileFormat(
    name="a line of a survey log",
    made_by="python -m data_prep.survey",
    kind=ExaminedCase,
    oldest=1,
    upgrades=(migrations.examined_case, migrations.examined_case_with_foreground),
)


def write_survey(
    config: SurveyConfig,
    *,
    progress: Progress = silent,
    on_resumed: Callable[[pathlib.Path, int, int], None] | None = None,
    unusable: dict[str, InputError] | None = None,
) -> tuple[tuple[DomainFacts, ...], list[pathlib.Path]]:
    """Surveys domains, writes survey.json and survey.csv and draws contact sheets.

    Args:
      config: the settings.
      progress: shows how many cases are done.
      on_resumed: called before the first case is examined, if a log has earlier
        results: with the log, the number of remaining cases and that of all cases.
      unusable: see `find_domains`.

    Returns:
      The survey, and the files of the contact sheets.

    Raises:
      InputError: if a folder cannot be used or another run is writing to it.
      StoppedError: if a worker is killed.
    """
    datasets = find_domains(config.raw_dir, config.domains, unusable=unusable)
    output_dir = pathlib.Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(
            "`output_dir`", expected="a folder", received=f"the file {output_dir}"
        )
    log = output_dir / LOG_NAME
    if config.pictures is not None:
        draw_pictures.check_folder(pathlib.Path(config.pictures))
    thumbnails = output_dir / THUMBNAILS_NAME
    sheets: list[pathlib.Path] = []
    with locks.locked(output_dir):
        domains = survey(
            datasets,
            log=log,
            spacing_source=config.spacing_source,
            round_labels=config.round_labels,
            resample_modalities=config.resample_modalities,
            max_memory_gb=config.max_memory_gb,
            num_workers=config.num_workers,
            thumbnails=None if config.pictures is None else thumbnails,
            progress=progress,
            on_resumed=on_resumed,
        )
        texts = {
            survey_file.CSV_NAME: survey_file.to_csv(domains),
            survey_file.JSON_NAME: survey_file.to_json(domains),
        }
        for name, text in texts.items():
            files.write_text(output_dir / name, text)
        if config.pictures is not None:
            folder = pathlib.Path(config.pictures)
            sheets = draw_pictures.draw_pictures(
                domains, thumbnails, folder, progress=progress
            )
        log.unlink(missing_ok=True)
        shutil.rmtree(thumbnails, ignore_errors=True)
    return domains, sheets


def find_domains(
    raw_dir: str | os.PathLike,
    names: Sequence[str],
    *,
    unusable: dict[str, InputError] | None = None,
) -> tuple[Dataset, ...]:
    """Reads dataset.json of all domain folders, or of the named ones in their order.

    Args:
      raw_dir: folder of domain folders, or a single domain folder.
      names: names of the folders; all if empty.
      unusable: name -> reason, to which folders are added whose dataset.json is missing
        or malformed; None to raise the first error.

    Returns:
      At least one dataset.

    Raises:
      InputError: if a named folder is missing, or no dataset.json can be used.
    """
    raw_dir = files.absolute_path(raw_dir)
    found: list[Dataset] = []
    errors: dict[str, InputError] = {}
    for folder in _find_folders(raw_dir, names):
        try:
            found.append(msd.read_dataset(folder))
        except InputError as error:
            if unusable is None:
                raise
            errors[folder.name] = error
    if not found:
        first, *others = errors.values()
        rows = "".join(f"\n  {error}" for error in others)
        raise first.within("", separator="", hint=first.hint + rows)
    if unusable is not None:
        unusable |= errors
    return tuple(found)


def _find_folders(raw_dir: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
    """Returns domain folders, including those recognized by `imagesTr` alone."""
    if len(set(names)) < len(names):
        raise InputError(
            "`domains`", expected="distinct names", received=",".join(names)
        )
    if names and not (raw_dir / "dataset.json").is_file():
        for name in names:
            if not (raw_dir / name).is_dir():
                raise InputError(
                    "`domains`",
                    expected=f"a folder {raw_dir / name}",
                    received="no such folder",
                )
        return [raw_dir / name for name in names]
    folders = msd.find_datasets(raw_dir)
    if names and list(names) != [folders[0].name]:
        raise InputError(
            "`domains`",
            expected=f"{folders[0].name}, the only domain in `raw_dir`",
            received=",".join(names),
        )
    if folders != [raw_dir]:
        with_images = {path.parent for path in raw_dir.glob("[!.]*/imagesTr")}
        folders = sorted({*folders, *with_images})
    return folders


def survey(
    datasets: Sequence[Dataset],
    *,
    log: pathlib.Path,
    spacing_source: SpacingSource,
    num_workers: int | None,
    round_labels: bool = False,
    resample_modalities: bool = False,
    max_memory_gb: float | None = None,
    thumbnails: pathlib.Path | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
    on_resumed: Callable[[pathlib.Path, int, int], None] | None = None,
) -> tuple[DomainFacts, ...]:
    """Examines all cases of datasets.

    Args:
      datasets: their cases, labels and modalities.
      log: file to which each examined case is appended. Cases that are in it, and whose
        files have not changed since, are not examined again.
      spacing_source: "pixdim" or "affine".
      num_workers: maximum number of worker processes; None for one per core.
      round_labels: whether label values that are nearly integers are rounded.
      resample_modalities: whether modalities in separate files are resampled to the
        grid of the first one if their grids differ.
      max_memory_gb: memory limit of the worker processes together, and of each file;
        see `memory.fitting_workers`.
      thumbnails: folder for a thumbnail of each case; None for no thumbnails.
      executor: examines the cases; None for processes on this machine.
      progress: shows how many cases are done.
      on_resumed: see `write_survey`.

    Raises:
      StoppedError: if a worker is killed.
    """
    jobs = [
        SurveyJob(
            domain=dataset.name,
            case=case.name,
            image_paths=tuple(map(str, case.image_paths)),
            label_path=str(case.label_path),
            num_modalities=len(dataset.modalities),
            known_labels=tuple(dataset.labels),
            ignore_label=dataset.ignore_label,
            spacing_source=spacing_source,
            round_labels=round_labels,
            resample_modalities=resample_modalities,
            max_memory_gb=max_memory_gb,
            thumbnail=_thumbnail(thumbnails, dataset.name, case.name),
        )
        for dataset in datasets
        for case in dataset.cases
    ]
    keys = {job: job.key for job in jobs}
    finished = Log(log, EXAMINED_CASE)
    facts = _examined_before(keys, finished.read())
    pending = [job for job in jobs if job not in facts]
    if facts and on_resumed is not None:
        on_resumed(log, len(pending), len(jobs))
    bar = progress(total=len(jobs), initial=len(facts), desc="survey", unit="case")
    if executor is None:
        num_workers = workers_for(pending, num_workers, max_memory_gb)
    workers = parallel.workers(
        executor,
        num_workers,
        len(pending),
        # The command lists warnings itself, after the table.
        verbosity=logging.ERROR,
    )
    with bar, finished, workers as pool:
        for job, found in parallel.map_cases(examine_case, pending, pool):
            facts[job] = found
            finished.append(ExaminedCase(keys[job], found))
            bar.update()
    return tuple(
        _domain_facts(
            dataset,
            [facts[job] for job in jobs if job.domain == dataset.name],
            spacing_source=spacing_source,
            round_labels=round_labels,
            resample_modalities=resample_modalities,
        )
        for dataset in datasets
    )


def _thumbnail(folder: pathlib.Path | None, domain: str, case: str) -> str | None:
    if folder is None:
        return None
    return str(draw_pictures.thumbnail_path(folder, domain, case))


def _examined_before(
    keys: Mapping[SurveyJob, str], known: Mapping[str | None, ExaminedCase]
) -> dict[SurveyJob, CaseFacts]:
    """Returns the logged facts of cases, except those that must be examined again.

    These lack a requested thumbnail. Cases whose image cannot be read have none.
    """
    return {
        job: found.facts
        for job, key in keys.items()
        if (found := known.get(key))
        and (
            job.thumbnail is None
            or not found.facts.shape
            or os.path.isfile(job.thumbnail)
        )
    }


def _domain_facts(
    dataset: Dataset, cases: Sequence[CaseFacts], **settings: Any
) -> DomainFacts:
    return DomainFacts(
        name=dataset.name,
        folder=str(dataset.folder),
        modalities=dataset.modalities,
        labels=dataset.labels,
        ignore_label=dataset.ignore_label,
        regions=dataset.regions,
        cases=tuple(with_duplicate_faults(dataset, cases)),
        warnings=tuple(domain_warnings(dataset, cases)),
        **settings,
    )
