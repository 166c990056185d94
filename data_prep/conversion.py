"""Preprocesses cases in parallel and has them gathered in shards.

Each worker preprocesses one case at a time and leaves it as a part file; then the parts
are written to shards in a fixed order, one at a time. So memory is bounded by the
largest case per process, the shards do not depend on the number of workers, and a run
that was interrupted finds its finished parts again. The parts of one domain lie beside
its shards until these are written: a domain needs its size on disk twice for a while.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import pathlib
import shutil

from tqdm import tqdm

from data_prep import worker
from data_prep.case_parts import Task, preprocess_case
from data_prep.shards import write_shards
from u2net_tf import files
from u2net_tf.domains import SPLITS, Domain, Plan
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.machine import num_cores
from u2net_tf.manifest import Manifest, fingerprint, load_manifest, manifest_path
from u2net_tf.plan_files import plan_to_json
from u2net_tf.volumes import msd


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to convert; see the flags of `data_prep.convert`."""

    data_dir: str
    raw_dir: str | None = None
    image_dtype: str = "float16"
    compression: str = "none"
    shard_size_mb: float = 100
    num_workers: int | None = None
    skip_bad_cases: bool = False
    overwrite: bool = False


def convert(plan: Plan, names: list[str], settings: Settings) -> list[Manifest]:
    """Converts domains of a plan; those that are done already are left alone.

    The plan is written beside the shards last of all.

    Args:
      plan: the plan.
      names: domains to convert; all if empty.
      settings: how.

    Returns:
      The manifests, in the order of the plan.

    Raises:
      InputError: at the first bad case, unless they are skipped; if nothing is left;
        if the folder holds shards of other settings, or raw files have changed since.
      StoppedError: if the system ended a worker.
      OSError: if the disk is full.
    """
    data_dir = pathlib.Path(settings.data_dir)
    chosen = plan.select(names)
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
            manifest = _convert_domain(domain, tasks[domain.name], settings)
        manifests.append(manifest)
        shutil.rmtree(_parts_folder(domain, settings), ignore_errors=True)
        _report(data_dir, manifest, done_before=done[domain.name])
    files.write_text(data_dir / "plan.json", plan_to_json(plan))
    return manifests


def _convert_domain(domain: Domain, tasks: list[Task], settings: Settings) -> Manifest:
    skipped = _preprocess(domain, tasks, settings)
    left = [task for task in tasks if task.case.name not in skipped]
    if not left:
        raise InputError(
            f"{domain.name}: expected at least one usable case, found none; the first "
            f"problem is {next(iter(skipped.values()), 'that the plan lists no case')}"
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
    )


def _parts_folder(domain: Domain, settings: Settings) -> pathlib.Path:
    return pathlib.Path(settings.data_dir) / domain.name / ".parts"


def _tasks(domain: Domain, settings: Settings) -> list[Task]:
    dataset = msd.read_domain(domain, settings.raw_dir)
    tasks = []
    for split in SPLITS:
        for name in domain.cases(split):
            case = dataset.case(name)
            paths = (case.image_path, case.label_path)
            stamps = files.stamps(paths)
            for path, stamp in zip(paths, stamps, strict=True):
                if stamp is None and not settings.skip_bad_cases:
                    raise InputError(f"{path}: expected a file, found none")
            part = _parts_folder(domain, settings) / f"{name}.npz"
            tasks.append(Task(domain, case, split, settings.image_dtype, stamps, part))
    # A fixed order that does not follow the names, so that a shard is a mixed sample.
    tasks.sort(key=lambda task: hashlib.sha256(task.case.name.encode()).digest())
    return tasks


def _is_done(domain: Domain, tasks: list[Task], settings: Settings) -> bool:
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
    difference = _difference(manifest, domain, tasks, settings)
    if difference and not settings.overwrite:
        raise InputError(f"{path}: {difference}; --overwrite converts again")
    if difference:
        return False
    shards = {entry.shard for entry in manifest.cases}
    return all((path.parent / name).is_file() for name in shards)


def _difference(
    manifest: Manifest, domain: Domain, tasks: list[Task], settings: Settings
) -> str:
    """How what is there differs from what is wanted; "" if it does not."""
    if manifest.fingerprint != fingerprint(domain):
        return "expected shards of this plan, found shards of another one"
    for name in ("image_dtype", "compression", "shard_size_mb"):
        found, wanted = getattr(manifest, name), getattr(settings, name)
        if found not in (wanted, None):
            return f"expected shards with --{name}={wanted}, found --{name}={found}"
    if manifest.skipped and not settings.skip_bad_cases:
        case, reason = next(iter(manifest.skipped.items()))
        return (
            f"expected every case, found {len(manifest.skipped)} that were skipped "
            f"(--on_bad_case=skip accepts that), the first of them {case}: {reason}"
        )
    for task in tasks:
        paths = (task.case.image_path, task.case.label_path)
        before = manifest.raw_stamps.get(task.case.name, task.stamps)
        for path, old, new in zip(paths, before, task.stamps, strict=True):
            if old != new:
                return (
                    f"expected {path} as it was converted, found another size or "
                    "time of last change"
                )
    return ""


def _preprocess(
    domain: Domain, tasks: list[Task], settings: Settings
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
        initializer=worker.start,
        initargs=(max(1, cores // num_workers),),
    ) as executor:
        futures = {executor.submit(preprocess_case, task): task for task in tasks}
        finished = concurrent.futures.as_completed(futures)
        try:
            for future in tqdm(
                finished, domain.name, len(tasks), unit="case", disable=None
            ):
                problem = future.result()
                if problem and not settings.skip_bad_cases:
                    raise InputError(problem)
                if problem:
                    skipped[futures[future].case.name] = problem
        except concurrent.futures.process.BrokenProcessPool as error:
            raise StoppedError(
                f"{domain.name}: a worker was ended by the system, most likely for "
                f"lack of memory with --num_workers={num_workers}; run the same "
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


def _report(data_dir: pathlib.Path, manifest: Manifest, *, done_before: bool) -> None:
    counts = ", ".join(
        f"{len(manifest.entries(split))} {split}"
        for split in SPLITS
        if manifest.entries(split)
    )
    folder = data_dir / manifest.domain
    shards = {entry.shard for entry in manifest.cases}
    size = sum((folder / name).stat().st_size for name in shards) / 1e6
    note = " (was done already)" if done_before else ""
    print(f"{folder}: {counts} cases, {size:.1f} MB in {len(shards)} shards{note}")
    for case, reason in manifest.skipped.items():
        print(f"  skipped {case}: {reason}")
