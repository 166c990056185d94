"""Preprocesses cases in parallel and writes them to shards.

Each worker preprocesses one case at a time and writes it to a part file; the parts are
then written to shards one at a time, in a fixed order. As many workers run as fit into
memory with the largest cases, the shards do not depend on the number of workers, and a
rerun reuses the parts of an interrupted run. The parts of a domain are kept next to its
shards until these are written, which needs twice the domain's size on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import shutil
from collections.abc import Callable
from concurrent.futures import Executor

from absl import logging

from data_prep.config import ConversionConfig
from data_prep.convert.case_memory import conversion_bytes
from data_prep.convert.compare_shards import require_unchanged, skipped_error
from data_prep.convert.part_files import ConversionJob, is_written, write_part
from data_prep.convert.write_shards import write_domain_shards
from u2net_tf import files, locks, machine, parallel, temporary_names
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import Manifest, load_manifest, manifest_path
from u2net_tf.shards.shard_files import check_shard_files
from u2net_tf.volumes import msd
from u2net_tf.volumes.memory import fitting_workers
from u2net_tf.wording import first_few, quantity


def convert(
    plan: Plan,
    settings: ConversionConfig,
    *,
    executor: Executor | None = None,
    progress: Progress = silent,
    on_finished: Callable[[Manifest, bool], None] | None = None,
) -> list[Manifest]:
    """Converts the domains of a plan, except those already converted.

    The plan is written to the folder of the shards at the end.

    Args:
      plan: preprocessing and cases of the domains.
      settings: settings of the conversion.
      executor: preprocesses the cases; None for processes on this machine.
      progress: shows how many cases of a domain are done.
      on_finished: called when a domain is done, with its manifest and whether it was
        already converted.

    Returns:
      The manifests, in the order of the plan.

    Raises:
      InputError: if a case is unusable, unless such cases are skipped; if no usable
        case is left; if the folder has shards made with other settings, or raw files
        have changed since; or if another run is converting one of the domains.
      StoppedError: if a worker is killed.
      OSError: if the disk is full.
    """
    data_dir = pathlib.Path(settings.data_dir)
    chosen = plan.select(settings.domains)
    with contextlib.ExitStack() as stack:
        # All domains are locked first, so that a conversion is refused at its start or
        # not at all. Other runs may convert other domains into the same folder.
        for domain in chosen.domains:
            stack.enter_context(locks.locked(data_dir / domain.name))
        return _convert(plan, chosen, settings, executor, progress, on_finished)


def _convert(
    plan: Plan,
    chosen: Plan,
    settings: ConversionConfig,
    executor: Executor | None,
    progress: Progress,
    on_finished: Callable[[Manifest, bool], None] | None,
) -> list[Manifest]:
    data_dir = pathlib.Path(settings.data_dir)
    jobs = {domain.name: _jobs(domain, settings) for domain in chosen.domains}
    is_converted = {
        domain.name: _is_converted(
            domain, jobs[domain.name], settings, executor, progress
        )
        for domain in chosen.domains
    }
    manifests = []
    for domain in chosen.domains:
        if is_converted[domain.name]:
            manifest = load_manifest(data_dir, domain.name)
        else:
            temporary_names.remove_leftovers(_parts_folder(domain, settings))
            manifest = _convert_domain(
                domain, jobs[domain.name], settings, executor, progress
            )
        manifests.append(manifest)
        shutil.rmtree(_parts_folder(domain, settings), ignore_errors=True)
        if on_finished is not None:
            on_finished(manifest, is_converted[domain.name])
    files.write_text(data_dir / "plan.json", plan_to_json(plan))
    return manifests


def _convert_domain(
    domain: Domain,
    jobs: list[ConversionJob],
    settings: ConversionConfig,
    executor: Executor | None,
    progress: Progress,
) -> Manifest:
    skipped = _write_parts(domain, jobs, settings, executor, progress)
    usable = [job for job in jobs if job.case.name not in skipped]
    if not usable:
        raise InputError(
            domain.name,
            expected="at least one usable case",
            received="none",
            hint=f"The first problem is: {next(iter(skipped.values()))}"
            if skipped
            else "The plan lists no cases",
        )
    return write_domain_shards(
        settings,
        domain,
        usable,
        skipped=skipped,
        signatures={job.case.name: job.signatures for job in jobs},
        progress=progress,
    )


def _parts_folder(domain: Domain, settings: ConversionConfig) -> pathlib.Path:
    return pathlib.Path(settings.data_dir) / domain.name / ".parts"


def _jobs(domain: Domain, settings: ConversionConfig) -> list[ConversionJob]:
    dataset = msd.read_domain(domain, settings.raw_dir)
    jobs = []
    for group, names in domain.groups.items():
        for name in names:
            case = dataset.case(name)
            signatures = files.file_signatures(case.paths)
            for path, signature in zip(case.paths, signatures, strict=True):
                if signature is None and settings.on_bad_case == "fail":
                    raise InputError(
                        path, expected="a file", received=files.what_is_at(path)
                    )
            part = _parts_folder(domain, settings) / f"{name}.npz"
            jobs.append(
                ConversionJob(
                    domain,
                    case,
                    group,
                    settings.image_dtype,
                    signatures,
                    part,
                    settings.max_memory_gb,
                    settings.resample_modalities,
                )
            )
    # A fixed order unrelated to the names, so that each shard is a mixed sample.
    jobs.sort(key=lambda job: hashlib.sha256(job.case.name.encode()).digest())
    return jobs


def _is_converted(
    domain: Domain,
    jobs: list[ConversionJob],
    settings: ConversionConfig,
    executor: Executor | None,
    progress: Progress,
) -> bool:
    """Returns whether the shards of all usable cases already exist.

    Raises:
      InputError: if different shards exist and must not be replaced.
    """
    path = manifest_path(settings.data_dir, domain.name)
    if not path.is_file():
        return False
    try:
        manifest = load_manifest(settings.data_dir, domain.name)
    except InputError:
        if settings.overwrite:
            return False
        raise
    try:
        require_unchanged(path, manifest, domain, jobs, settings)
    except InputError:
        if settings.overwrite:
            return False
        raise
    try:
        check_shard_files(path.parent, manifest)
    except InputError as error:
        logging.warning("%s is converted again: %s", domain.name, error)
        return False
    skipped = [job for job in jobs if job.case.name in manifest.skipped]
    if not skipped:
        return True
    if _any_usable(domain, skipped, settings, executor, progress):
        return False
    if settings.on_bad_case == "fail" and not settings.overwrite:
        raise skipped_error(path, manifest)
    return settings.on_bad_case == "skip"


def _any_usable(
    domain: Domain,
    skipped: list[ConversionJob],
    settings: ConversionConfig,
    executor: Executor | None,
    progress: Progress,
) -> bool:
    """Returns whether a skipped case can be used now, for example with more memory.

    The parts of usable cases are kept for the conversion that follows.
    """
    trial = settings.with_changes(on_bad_case="skip")
    bad = _write_parts(domain, skipped, trial, executor, progress)
    usable = [job.case.name for job in skipped if job.case.name not in bad]
    if usable:
        logging.warning(
            "%s: converted again, since %s can be used now: %s",
            manifest_path(settings.data_dir, domain.name).parent,
            quantity(len(usable), "skipped case"),
            first_few(sorted(usable)),
        )
    return bool(usable)


def _write_parts(
    domain: Domain,
    jobs: list[ConversionJob],
    settings: ConversionConfig,
    executor: Executor | None,
    progress: Progress,
) -> dict[str, str]:
    """Writes the missing parts; returns case -> reason for skipped cases.

    Raises:
      InputError: if a case is unusable, unless such cases are skipped.
    """
    # Here and not in the workers, so that parts of an interrupted run do not count in
    # the rate of the progress.
    pending = [job for job in jobs if not is_written(job)]
    skipped: dict[str, str] = {}
    num_workers = settings.num_workers
    if executor is None:
        num_workers = fitting_workers(
            num_workers or machine.num_cores(),
            [conversion_bytes(job) for job in pending],
            settings.max_memory_gb,
            activity=f"{domain.name}: preprocessing cases",
        )
    with parallel.workers(
        executor,
        num_workers,
        len(pending),
        share_cores=True,
        where=domain.name,
    ) as pool:
        bar = progress(
            parallel.map_cases(write_part, pending, pool),
            domain.name,
            total=len(jobs),
            initial=len(jobs) - len(pending),
            unit="case",
        )
        for job, problem in bar:
            if problem and settings.on_bad_case == "fail":
                raise problem
            if problem:
                skipped[job.case.name] = str(problem)
    return dict(sorted(skipped.items()))
