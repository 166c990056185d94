"""Preprocesses cases in parallel and has them gathered in shards.

Each worker preprocesses one case at a time and leaves it as a part file; then the parts
are written to shards in a fixed order, one at a time. So memory is bounded by the
largest case per process, the shards do not depend on the number of workers, and a run
that was interrupted finds its finished parts again. The parts of one domain lie beside
its shards until these are written: a domain needs its size on disk twice for a while.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import multiprocessing
import pathlib
import shutil
from collections.abc import Callable

from data_prep.config import ConversionConfig
from data_prep.convert.preprocess_case import Task, preprocess_case
from data_prep.convert.write_shards import write_shards
from u2net_tf import files, parallel
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.machine import num_cores
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import Manifest, load_manifest, manifest_path
from u2net_tf.volumes import msd
from u2net_tf.wording import quantity


def convert(
    plan: Plan,
    settings: ConversionConfig,
    *,
    progress: Progress = silent,
    on_finished: Callable[[Manifest, bool], None] | None = None,
) -> list[Manifest]:
    """Converts domains of a plan; those that are done already are left alone.

    The plan is written beside the shards last of all.

    Args:
      plan: the plan.
      settings: how.
      progress: shows how many cases of a domain are done.
      on_finished: called for each domain when it is done, with its manifest and
        whether it was done before.

    Returns:
      The manifests, in the order of the plan.

    Raises:
      InputError: at the first bad case, unless they are skipped; if nothing is left;
        if the folder holds shards of other settings, or raw files have changed since.
      StoppedError: if the system ended a worker.
      OSError: if the disk is full.
    """
    data_dir = pathlib.Path(settings.data_dir)
    chosen = plan.select(settings.domains)
    tasks = {domain.name: _tasks(domain, settings) for domain in chosen.domains}
    done = {
        domain.name: _is_done(domain, tasks[domain.name], settings)
        for domain in chosen.domains
    }
    manifests = []
    for domain in chosen.domains:
        if done[domain.name]:
            manifest = load_manifest(data_dir, domain.name)
        else:
            manifest = _convert_domain(domain, tasks[domain.name], settings, progress)
        manifests.append(manifest)
        shutil.rmtree(_parts_folder(domain, settings), ignore_errors=True)
        if on_finished is not None:
            on_finished(manifest, done[domain.name])
    files.write_text(data_dir / "plan.json", plan_to_json(plan))
    return manifests


def _convert_domain(
    domain: Domain, tasks: list[Task], settings: ConversionConfig, progress: Progress
) -> Manifest:
    skipped = _preprocess(domain, tasks, settings, progress)
    left = [task for task in tasks if task.case.name not in skipped]
    if not left:
        raise InputError(
            domain.name,
            expected="at least one usable case",
            received="none",
            hint=f"The first problem is: {next(iter(skipped.values()))}"
            if skipped
            else "The plan lists no case",
        )
    return write_shards(
        settings.data_dir,
        domain,
        left,
        skipped=skipped,
        stamps={task.case.name: task.stamps for task in tasks},
        image_dtype=settings.image_dtype,
        compression=settings.compression,
        shard_size_mb=settings.shard_size_mb,
        progress=progress,
    )


def _parts_folder(domain: Domain, settings: ConversionConfig) -> pathlib.Path:
    return pathlib.Path(settings.data_dir) / domain.name / ".parts"


def _tasks(domain: Domain, settings: ConversionConfig) -> list[Task]:
    dataset = msd.read_domain(domain, settings.raw_dir)
    tasks = []
    for group, names in domain.groups.items():
        for name in names:
            case = dataset.case(name)
            paths = (case.image_path, case.label_path)
            stamps = files.stamps(paths)
            for path, stamp in zip(paths, stamps, strict=True):
                if stamp is None and settings.on_bad_case == "fail":
                    raise InputError(path, expected="a file", received="no such file")
            part = _parts_folder(domain, settings) / f"{name}.npz"
            tasks.append(Task(domain, case, group, settings.image_dtype, stamps, part))
    # A fixed order that does not follow the names, so that a shard is a mixed sample.
    tasks.sort(key=lambda task: hashlib.sha256(task.case.name.encode()).digest())
    return tasks


def _is_done(domain: Domain, tasks: list[Task], settings: ConversionConfig) -> bool:
    """Whether the shards are there.

    Raises:
      InputError: if others are there, and are not to be replaced.
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
        _check_same(path, manifest, domain, tasks, settings)
    except InputError:
        if settings.overwrite:
            return False
        raise
    shards = {entry.shard for entry in manifest.cases}
    return all((path.parent / name).is_file() for name in shards)


def _check_same(
    where: pathlib.Path,
    manifest: Manifest,
    domain: Domain,
    tasks: list[Task],
    settings: ConversionConfig,
) -> None:
    """Raises `InputError` if what is there differs from what is wanted."""
    again = "Use `overwrite` to convert again"
    try:
        manifest.check_plan(domain)
    except InputError as error:
        raise error.within(where, hint=again) from None
    for name in ("image_dtype", "compression", "shard_size_mb"):
        received, wanted = getattr(manifest, name), getattr(settings, name)
        if received not in (wanted, None):
            raise InputError(
                where,
                expected=f"shards with `{name}`={wanted}",
                received=f"`{name}`={received}",
                hint=again,
            )
    if manifest.skipped and settings.on_bad_case == "fail":
        case, reason = next(iter(manifest.skipped.items()))
        skipped = quantity(len(manifest.skipped), "skipped case")
        raise InputError(
            where,
            expected="every case",
            received=f"{skipped}, the first of them {case}: {reason}",
            hint="Use `on_bad_case`=skip to accept that, or `overwrite` to convert "
            "again",
        )
    for task in tasks:
        paths = (task.case.image_path, task.case.label_path)
        before = manifest.raw_stamps.get(task.case.name, task.stamps)
        for path, old, new in zip(paths, before, task.stamps, strict=True):
            if old != new:
                raise InputError(
                    where,
                    expected=f"{path} as it was converted",
                    received="another size or time of last change",
                    hint=again,
                )


def _preprocess(
    domain: Domain, tasks: list[Task], settings: ConversionConfig, progress: Progress
) -> dict[str, str]:
    """Makes the parts that are not there yet; returns case -> reason of those skipped.

    Raises:
      InputError: at the first bad case, unless they are skipped.
    """
    cores = num_cores()
    num_workers = max(1, min(settings.num_workers or cores, len(tasks)))
    skipped: dict[str, str] = {}
    with concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=parallel.start,
        initargs=(max(1, cores // num_workers),),
    ) as executor:
        futures = {executor.submit(preprocess_case, task): task for task in tasks}
        finished = concurrent.futures.as_completed(futures)
        try:
            for future in progress(
                finished, domain.name, total=len(tasks), unit="case"
            ):
                problem = future.result()
                if problem and settings.on_bad_case == "fail":
                    raise problem
                if problem:
                    skipped[futures[future].case.name] = str(problem)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise StoppedError(
                f"{domain.name}: a worker was ended by the system, most likely for "
                f"lack of memory with `num_workers`={num_workers}; run the same "
                "command with fewer, it goes on with the cases that are not done"
            ) from error
        except KeyboardInterrupt:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        except BaseException:
            # What is under way is finished, for the next run.
            executor.shutdown(cancel_futures=True)
            raise
    return dict(sorted(skipped.items()))
