"""Examines the cases of many folders in several processes, and goes on after a stop."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
from collections.abc import Iterator, Sequence

import tqdm
from absl import logging

from data_prep import worker
from data_prep.case_facts import (
    SAME_IMAGE,
    SAME_NAME,
    CaseFacts,
    Fault,
    Job,
    examine_case,
    stamp,
)
from data_prep.survey_files import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.volumes import msd
from u2net_tf.volumes.msd import Dataset


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
        raise InputError(f"--domains: expected distinct names, found {','.join(names)}")
    if names and not (raw_dir / "dataset.json").is_file():
        for name in names:
            if not (raw_dir / name).is_dir():
                raise InputError(
                    f"--domains: expected a folder {raw_dir / name}, found none"
                )
        return tuple(msd.read_dataset(raw_dir / name) for name in names)
    folders = msd.find_datasets(raw_dir)
    if names and list(names) != [folders[0].name]:
        raise InputError(
            f"--domains: expected {folders[0].name}, the one folder that --raw_dir "
            f"names, found {','.join(names)}"
        )
    for images in sorted(raw_dir.glob("*/imagesTr")):
        if not (images.parent / "dataset.json").is_file():
            raise InputError(
                f"{images.parent / 'dataset.json'}: expected a file beside imagesTr, "
                "found none (--domains takes other folders only)"
            )
    return tuple(msd.read_dataset(folder) for folder in folders)


def survey(
    datasets: Sequence[Dataset],
    *,
    partial: pathlib.Path,
    spacing_source: str,
    num_workers: int,
) -> tuple[DomainFacts, ...]:
    """Examines every case of these folders.

    Args:
      datasets: the folders.
      partial: file that each finished case is appended to. A case that it holds
        already, and whose files have not changed since, is not examined again.
      spacing_source: "pixdim" or "affine".
      num_workers: processes.

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
    facts = _examine_all(jobs, partial, num_workers)
    return tuple(
        _domain_facts(
            dataset,
            [facts[job] for job in jobs if job.domain == dataset.name],
            spacing_source,
        )
        for dataset in datasets
    )


def _examine_all(
    jobs: Sequence[Job], partial: pathlib.Path, num_workers: int
) -> dict[Job, CaseFacts]:
    stamps = {job: stamp(job) for job in jobs}
    earlier = _read_partial(partial)
    facts = {job: earlier[stamps[job]] for job in jobs if stamps[job] in earlier}
    left = [job for job in jobs if job not in facts]
    if facts:
        print(f"{partial}: going on with {len(left)} of {len(jobs)} cases")
    progress = tqdm.tqdm(
        total=len(jobs), initial=len(facts), desc="survey", unit="case", disable=None
    )
    with progress, partial.open("a", encoding="utf-8") as file:
        for job, found in _examine(left, num_workers):
            facts[job] = found
            row = {"stamp": stamps[job], "facts": dataclasses.asdict(found)}
            # The line before may be one that a killed run left half-written.
            file.write(f"\n{json.dumps(row)}")
            file.flush()
            progress.update()
    return facts


def _read_partial(partial: pathlib.Path) -> dict[str, CaseFacts]:
    facts = {}
    if partial.is_file():
        for line in partial.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                facts[row["stamp"]] = CaseFacts.from_json(row["facts"])
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
            f"--num_workers={num_workers}: expected every process to finish, found one "
            "killed (out of memory?); run again with fewer to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    worker.start(num_threads=1)
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
            text = f"expected case {case.case!r} once, found it listed more than once"
            listed = str(dataset.folder / "dataset.json")
            extra.append(Fault(SAME_NAME, listed, text))
        if case.checksum in seen:
            other = seen[case.checksum].case
            text = f"expected an image of its own, found that of case {other!r}"
            extra.append(Fault(SAME_IMAGE, case.image_path, text))
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
