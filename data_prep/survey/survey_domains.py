"""Examines the cases of many folders in several processes, and goes on after a stop."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import pydantic
from absl import logging

from data_prep.survey.examine_case import (
    SAME_IMAGE,
    SAME_NAME,
    CaseFacts,
    Fault,
    Job,
    examine_case,
    stamp,
)
from data_prep.survey.survey_file import SURVEY, DomainFacts
from u2net_tf import parallel
from u2net_tf.errors import InputError
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import msd
from u2net_tf.volumes.msd import Dataset

_FACTS = pydantic.TypeAdapter(CaseFacts)


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
    partial: pathlib.Path,
    spacing_source: str,
    num_workers: int,
    progress: Progress = silent,
    on_resumed: Callable[[int, int], None] | None = None,
) -> tuple[DomainFacts, ...]:
    """Examines every case of these folders.

    Args:
      datasets: the folders.
      partial: file that each finished case is appended to. A case that it holds
        already, and whose files have not changed since, is not examined again.
      spacing_source: "pixdim" or "affine".
      num_workers: processes.
      progress: shows how many cases are done.
      on_resumed: called before the first case is examined, with how many are left
        and how many there are, if some were examined before.

    Raises:
      InputError: if a process is killed.
    """
    jobs = [
        Job(
            domain=dataset.name,
            case=case.name,
            image_path=str(case.image_path),
            label_path=str(case.label_path),
            num_modalities=len(dataset.modalities),
            known_labels=tuple(dataset.labels),
            spacing_source=spacing_source,
        )
        for dataset in datasets
        for case in dataset.cases
    ]
    facts = _examine_all(jobs, partial, num_workers, progress, on_resumed)
    return tuple(
        _domain_facts(
            dataset,
            [facts[job] for job in jobs if job.domain == dataset.name],
            spacing_source,
        )
        for dataset in datasets
    )


def _examine_all(
    jobs: Sequence[Job],
    partial: pathlib.Path,
    num_workers: int,
    progress: Progress,
    on_resumed: Callable[[int, int], None] | None,
) -> dict[Job, CaseFacts]:
    # Of another format a row is not read, but its case examined again.
    stamps = {job: f"{SURVEY.number} {stamp(job)}" for job in jobs}
    earlier = _read_partial(partial)
    facts = {job: earlier[stamps[job]] for job in jobs if stamps[job] in earlier}
    left = [job for job in jobs if job not in facts]
    if facts and on_resumed is not None:
        on_resumed(len(left), len(jobs))
    bar = progress(total=len(jobs), initial=len(facts), desc="survey", unit="case")
    with bar, partial.open("a", encoding="utf-8") as file:
        for job, found in _examine(left, num_workers):
            facts[job] = found
            facts_row = _FACTS.dump_python(found, mode="json", by_alias=True)
            row = {"stamp": stamps[job], "facts": facts_row}
            # The line before may be one that a killed run left half-written.
            file.write(f"\n{json.dumps(row)}")
            file.flush()
            bar.update()
    return facts


def _read_partial(partial: pathlib.Path) -> dict[str, CaseFacts]:
    facts = {}
    if partial.is_file():
        for line in partial.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                facts[row["stamp"]] = _FACTS.validate_json(json.dumps(row["facts"]))
            except (ValueError, KeyError, TypeError):
                continue  # cut short, or of another version: examined again
    return facts


def _examine(jobs: Sequence[Job], num_workers: int) -> Iterator[tuple[Job, CaseFacts]]:
    if not jobs:
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=min(num_workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        futures = {pool.submit(examine_case, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise InputError(
            f"`num_workers`={num_workers}",
            expected="every process to finish",
            received="one that was killed, perhaps for lack of memory",
            hint="Rerun with fewer to resume",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    parallel.start(num_threads=1)
    # The survey lists warnings itself, after the table.
    logging.set_verbosity(logging.ERROR)


def _domain_facts(
    dataset: Dataset, cases: Sequence[CaseFacts], spacing_source: str
) -> DomainFacts:
    seen: dict[str, CaseFacts] = {}
    result = []
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
        result.append(dataclasses.replace(case, faults=(*case.faults, *extra)))
    voxels = collections.Counter()
    for case in cases:
        voxels.update(case.label_voxels)
    warnings = [
        f"{dataset.folder / 'dataset.json'}: no case holds label {value} ({name})"
        for value, name in dataset.labels.items()
        if not voxels[str(value)]
    ]
    return DomainFacts(
        name=dataset.name,
        folder=str(dataset.folder),
        modalities=dataset.modalities,
        labels=dataset.labels,
        spacing_source=spacing_source,
        cases=tuple(result),
        warnings=tuple(warnings),
    )
