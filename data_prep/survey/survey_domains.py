"""Examines the cases of many folders in several processes; a rerun resumes."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from absl import logging

from data_prep.config import SurveyConfig
from data_prep.survey import survey_file
from data_prep.survey.examine_case import (
    SAME_IMAGE,
    SAME_NAME,
    CaseFacts,
    Fault,
    SurveyJob,
    examine_case,
)
from data_prep.survey.survey_file import DomainFacts
from u2net_tf import files, locks, migrations, parallel, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import SpacingSource, require_classes
from u2net_tf.progress import Progress, silent
from u2net_tf.schema import Text
from u2net_tf.volumes import msd
from u2net_tf.volumes.msd import Dataset
from u2net_tf.wording import first_few, quantity
from u2net_tf.work_log import Log

LOG_NAME = ".survey.partial.jsonl"


@schema.model
class ExaminedCase:
    """A line of the log that an unfinished survey leaves.

    Attributes:
      key: `SurveyJob.key`.
      facts: what was found.
    """

    key: Text
    facts: CaseFacts


EXAMINED_CASE = FileFormat(
    name="a line of the log of a survey",
    made_by="python -m data_prep.survey",
    kind=ExaminedCase,
    oldest=1,
    upgrades=(migrations.examined_case,),
)


def write_survey(
    config: SurveyConfig,
    *,
    progress: Progress = silent,
    on_resumed: Callable[[pathlib.Path, int, int], None] | None = None,
) -> tuple[DomainFacts, ...]:
    """Surveys folders and writes survey.json and survey.csv.

    Args:
      config: the settings.
      progress: shows how many cases are done.
      on_resumed: called before the first case is examined, if some were examined
        before: with the file that says so, how many are left and how many there are.

    Raises:
      InputError: names a folder that cannot be used, or that another run writes to.
      StoppedError: if a worker is killed.
    """
    datasets = find_domains(config.raw_dir, config.domains)
    output_dir = pathlib.Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(
            "`output_dir`", expected="a folder", received=f"the file {output_dir}"
        )
    log = output_dir / LOG_NAME
    with locks.locked(output_dir):
        domains = survey(
            datasets,
            log=log,
            spacing_source=config.spacing_source,
            round_labels=config.round_labels,
            max_memory_gb=config.max_memory_gb,
            num_workers=config.num_workers,
            progress=progress,
            on_resumed=on_resumed,
        )
        files.write_text(output_dir / survey_file.CSV_NAME, survey_file.to_csv(domains))
        files.write_text(
            output_dir / survey_file.JSON_NAME, survey_file.to_json(domains)
        )
        log.unlink(missing_ok=True)
    return domains


def find_domains(
    raw_dir: str | os.PathLike, names: Sequence[str]
) -> tuple[Dataset, ...]:
    """Reads dataset.json of every folder, or of the named ones in their order.

    Args:
      raw_dir: folder with a folder per domain, or the folder of one domain.
      names: folders; all where empty.

    Raises:
      InputError: if a folder or a dataset.json is missing or malformed.
    """
    raw_dir = pathlib.Path(os.path.abspath(raw_dir))
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
        return tuple(msd.read_dataset(raw_dir / name) for name in names)
    folders = msd.find_datasets(raw_dir)
    if names and list(names) != [folders[0].name]:
        raise InputError(
            "`domains`",
            expected=f"{folders[0].name}, the only folder in `raw_dir`",
            received=",".join(names),
        )
    for images in sorted(raw_dir.glob("*/imagesTr")):
        if not (images.parent / "dataset.json").is_file():
            raise InputError(
                images.parent / "dataset.json",
                expected="a file beside imagesTr",
                received="no such file",
                hint="Use `domains` to choose other folders",
            )
    return tuple(msd.read_dataset(folder) for folder in folders)


def survey(
    datasets: Sequence[Dataset],
    *,
    log: pathlib.Path,
    spacing_source: SpacingSource,
    num_workers: int | None,
    round_labels: bool = False,
    max_memory_gb: float | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
    on_resumed: Callable[[pathlib.Path, int, int], None] | None = None,
) -> tuple[DomainFacts, ...]:
    """Examines every case of these folders.

    Args:
      datasets: the folders.
      log: file that each examined case is appended to. A case that it holds, and whose
        files have not changed since, is not examined again.
      spacing_source: "pixdim" or "affine".
      num_workers: processes; None for one per core.
      round_labels: whether label values that are nearly whole are rounded.
      max_memory_gb: see `memory.require_memory`.
      executor: examines the cases; None for processes of this machine.
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
            spacing_source=spacing_source,
            round_labels=round_labels,
            max_memory_gb=max_memory_gb,
        )
        for dataset in datasets
        for case in dataset.cases
    ]
    keys = {job: job.key for job in jobs}
    finished = Log(log, EXAMINED_CASE)
    known = finished.read()
    facts = {job: known[key].facts for job, key in keys.items() if key in known}
    pending = [job for job in jobs if job not in facts]
    if facts and on_resumed is not None:
        on_resumed(log, len(pending), len(jobs))
    bar = progress(total=len(jobs), initial=len(facts), desc="survey", unit="case")
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
            spacing_source,
            round_labels,
        )
        for dataset in datasets
    )


def _domain_facts(
    dataset: Dataset,
    cases: Sequence[CaseFacts],
    spacing_source: SpacingSource,
    round_labels: bool,
) -> DomainFacts:
    return DomainFacts(
        name=dataset.name,
        folder=str(dataset.folder),
        modalities=dataset.modalities,
        labels=dataset.labels,
        spacing_source=spacing_source,
        round_labels=round_labels,
        cases=tuple(_with_repetitions(dataset, cases)),
        warnings=tuple(_warnings(dataset, cases)),
    )


def _with_repetitions(
    dataset: Dataset, cases: Sequence[CaseFacts]
) -> Iterator[CaseFacts]:
    """The cases, with the faults that only show beside each other."""
    seen: dict[str, CaseFacts] = {}
    for case in cases:
        extra = []
        if case.case in dataset.duplicates:
            listed = str(dataset.folder / "dataset.json")
            fault = InputError(
                listed,
                expected=f"the case {case.case!r} once",
                received="several entries of this name",
            )
            extra.append(Fault(SAME_NAME, listed, fault.problem))
        if case.checksum in seen:
            other = seen[case.checksum].case
            fault = InputError(
                case.image_path,
                expected="an image of its own",
                received=f"that of case {other!r}",
            )
            extra.append(Fault(SAME_IMAGE, case.image_path, fault.problem))
        elif case.checksum:
            seen[case.checksum] = case
        yield dataclasses.replace(case, faults=(*case.faults, *extra))


def _warnings(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[str]:
    voxels: collections.Counter[str] = collections.Counter()
    for case in cases:
        voxels.update(case.label_voxels)
    source = dataset.folder / "dataset.json"
    warnings = [f"{source}: {note}" for note in dataset.notes]
    if unlisted := msd.unlisted_files(dataset):
        count = quantity(len(unlisted), "volume")
        warnings.append(f"{source}: {count} of no case: {first_few(unlisted)}")
    try:
        require_classes(list(dataset.labels.values()))
    except InputError as error:
        # The plan may join some of them.
        warnings.append(str(error.within(source)))
    warnings += [
        f"{source}: no case holds label {value} ({name})"
        for value, name in dataset.labels.items()
        if not voxels[str(value)]
    ]
    return warnings + _unit_warnings(dataset, cases)


def _unit_warnings(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[str]:
    """Says once how many images are not in mm."""
    counts = collections.Counter(case.length_unit for case in cases if case.shape)
    warnings = []
    for unit, count in counts.items():
        if unit == "mm":
            continue
        images = f"{dataset.folder}: {count} of {quantity(len(cases), 'image')}"
        if unit:
            warnings.append(f"{images} with voxel sizes in {unit}, converted to mm")
        else:
            warnings.append(f"{images} without a unit of length; taking mm")
    return warnings
