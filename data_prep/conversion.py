"""Preprocesses cases in parallel and gathers them in shards.

Each worker preprocesses one case at a time and leaves it as a part file; the parent
serializes parts into shards in a fixed order, one at a time. So memory is bounded by
the largest case per process, the shards do not depend on the number of workers, and a
run that was interrupted finds its finished parts again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import zlib

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from u2net_tf import files
from u2net_tf.command import InputError
from u2net_tf.domains import SPLITS, Domain, Plan, plan_to_json
from u2net_tf.manifest import (
    CaseEntry,
    Manifest,
    fingerprint,
    load_manifest,
    manifest_path,
    to_json,
)
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import msd, preprocess

# Voxels of each class that a record lists, to draw patches around.
COORDINATES_PER_CLASS = 1000


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to convert; see the flags of `data_prep.convert`."""

    data_dir: str
    raw_dir: str | None = None
    image_dtype: str = "float16"
    compression: str = "none"
    shard_size_mb: int = 100
    num_workers: int | None = None
    skip_bad_cases: bool = False
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class _Task:
    """One case to preprocess."""

    domain: Domain
    case: msd.Case
    split: str
    image_dtype: str
    part: pathlib.Path

    @property
    def key(self) -> str:
        """Changes whenever the part would."""
        paths = (self.case.image_path, self.case.label_path)
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
        parts = [fingerprint(self.domain), self.image_dtype, stats]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def convert(plan: Plan, names: list[str], settings: Settings) -> list[Manifest]:
    """Converts domains of a plan; those that are done already are left alone.

    Args:
      plan: the plan.
      names: domains to convert; all if empty.
      settings: how.

    Returns:
      The manifests, in the order of the plan.

    Raises:
      InputError: at the first bad case, unless they are skipped; if nothing is left;
        if the folder holds shards of other settings.
    """
    data_dir = pathlib.Path(settings.data_dir)
    chosen = plan.select(names)
    tasks = {domain.name: _tasks(domain, settings) for domain in chosen.domains}
    pending = [d for d in chosen.domains if not _is_done(d, settings)]
    files.write_text(data_dir / "plan.json", plan_to_json(plan))
    for domain in pending:
        folder = data_dir / domain.name
        parts, skipped = _preprocess(domain, tasks[domain.name], settings)
        manifest = _assemble(domain, parts, skipped, settings)
        files.write_text(manifest_path(data_dir, domain.name), to_json(manifest))
        _remove_stale_shards(folder, manifest)
        shutil.rmtree(folder / ".parts")
    manifests = [load_manifest(data_dir, domain.name) for domain in chosen.domains]
    fresh = {domain.name for domain in pending}
    for manifest in manifests:
        _report(data_dir, manifest, done_before=manifest.domain not in fresh)
    return manifests


def _tasks(domain: Domain, settings: Settings) -> list[_Task]:
    folder = pathlib.Path(domain.raw_dir)
    if settings.raw_dir is not None:
        folder = pathlib.Path(settings.raw_dir) / domain.name
    dataset = msd.read_dataset(folder)
    parts = pathlib.Path(settings.data_dir) / domain.name / ".parts"
    tasks = []
    for split in SPLITS:
        for name in domain.cases(split):
            case = dataset.case(name)
            if not settings.skip_bad_cases:
                for path in (case.image_path, case.label_path):
                    if not path.is_file():
                        raise InputError(f"{path}: expected a file, found none")
            part = parts / f"{name}.npz"
            tasks.append(_Task(domain, case, split, settings.image_dtype, part))
    # A fixed order that does not follow the names, so that a shard is a mixed sample.
    tasks.sort(key=lambda task: hashlib.sha256(task.case.name.encode()).digest())
    return tasks


def _is_done(domain: Domain, settings: Settings) -> bool:
    path = manifest_path(settings.data_dir, domain.name)
    if not path.is_file():
        return False
    manifest = load_manifest(settings.data_dir, domain.name)
    found = (manifest.fingerprint, manifest.image_dtype, manifest.compression)
    wanted = (fingerprint(domain), settings.image_dtype, settings.compression)
    if found == wanted:
        return True
    if not settings.overwrite:
        raise InputError(
            f"{path}: expected shards of this plan as {settings.image_dtype}, "
            f"compression {settings.compression}; found {manifest.image_dtype}, "
            f"compression {manifest.compression}"
            + ("" if found[0] == wanted[0] else ", of another plan")
            + "; --overwrite replaces them"
        )
    return False


def _preprocess(
    domain: Domain, tasks: list[_Task], settings: Settings
) -> tuple[list[_Task], dict[str, str]]:
    """Makes the parts that are not there yet; returns those done and those skipped."""
    (pathlib.Path(settings.data_dir) / domain.name / ".parts").mkdir(
        parents=True, exist_ok=True
    )
    num_workers = settings.num_workers or os.cpu_count() or 1
    num_workers = max(1, min(num_workers, len(tasks)))
    threads = max(1, (os.cpu_count() or 1) // num_workers)
    skipped: dict[str, str] = {}
    executor = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=sitk.ProcessObject.SetGlobalDefaultNumberOfThreads,
        initargs=(threads,),
    )
    with executor:
        futures = {executor.submit(_preprocess_case, task): task for task in tasks}
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
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    left = [task for task in tasks if task.case.name not in skipped]
    if not left:
        raise InputError(
            f"{domain.name}: expected at least one usable case, found none; the first "
            f"problem is {next(iter(skipped.values()), 'that the plan lists no case')}"
        )
    return left, dict(sorted(skipped.items()))


def _preprocess_case(task: _Task) -> str:
    """Writes the part of one case; returns what is wrong with the case, or ""."""
    try:
        for path in (task.case.image_path, task.case.label_path):
            if not path.is_file():
                raise InputError(f"{path}: expected a file, found none")
        if task.part.is_file():
            with np.load(task.part) as part:
                if str(part["key"]) == task.key:
                    return ""
        image = case_files.read_image([task.case.image_path], task.domain)
        labels = case_files.read_labels(task.case.label_path, image, task.domain)
        prepared, placement = case_files.preprocess_case(image, task.domain)
    except InputError as error:
        return str(error)
    origin = {
        "files": [str(task.case.image_path), str(task.case.label_path)],
        "raw_shape": placement.raw_shape,
        "raw_spacing_mm": image.spacing_mm,
        "raw_orientation": image.grid.axis_codes,
        "raw_affine": image.grid.affine.tolist(),
        "crop_start": placement.crop_start,
        "crop_shape": placement.crop_shape,
        "shape": placement.shape,
        "spacing_mm": task.domain.spacing_mm,
    }
    with files.written_whole(task.part) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            key=task.key,
            origin=json.dumps(origin),
            image=prepared.astype(task.image_dtype),
            labels=preprocess.preprocess_labels(labels, placement),
        )
    return ""


class _ShardWriter:
    """Writes shards under temporary names; `finish` gives them their own."""

    def __init__(self, folder: pathlib.Path, split: str, settings: Settings):
        self._folder = folder
        self._split = split
        self._settings = settings
        self._shards: list[tuple[pathlib.Path, list[CaseEntry]]] = []
        self._writer = None
        self._size = 0

    def write(self, serialized: bytes, entry: CaseEntry) -> None:
        import tensorflow as tf

        from u2net_tf.records import COMPRESSION_TYPES

        if self._writer is None or self._size >= self._settings.shard_size_mb * 1e6:
            self.close()
            number = len(self._shards)
            path = self._folder / f".partial-{self._split}-{number:05d}.tfrecord"
            kind = COMPRESSION_TYPES[self._settings.compression]
            self._writer = tf.io.TFRecordWriter(str(path), kind)
            self._shards.append((path, []))
            self._size = 0
        self._writer.write(serialized)
        self._shards[-1][1].append(entry)
        self._size += len(serialized)

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def discard(self) -> None:
        self._writer = None
        for path, _ in self._shards:
            path.unlink(missing_ok=True)

    def finish(self) -> list[CaseEntry]:
        self.close()
        total = len(self._shards)
        entries = []
        for number, (path, rows) in enumerate(self._shards):
            name = f"{self._split}-{number:05d}-of-{total:05d}.tfrecord"
            os.replace(path, self._folder / name)
            entries += [dataclasses.replace(row, shard=name) for row in rows]
        return entries


def _assemble(
    domain: Domain, tasks: list[_Task], skipped: dict[str, str], settings: Settings
) -> Manifest:
    import tensorflow as tf

    folder = pathlib.Path(settings.data_dir) / domain.name
    writers = {split: _ShardWriter(folder, split, settings) for split in SPLITS}
    progress = tqdm(
        tasks, f"{domain.name}: shards", unit="case", disable=None, leave=False
    )
    try:
        for task in progress:
            serialized, entry = _serialize(task)
            writers[task.split].write(serialized, entry)
        for writer in writers.values():
            writer.close()
    except BaseException as error:
        for writer in writers.values():
            writer.discard()
        if isinstance(error, tf.errors.OpError):
            # TensorFlow's file system reports a full disk in a class of its own.
            raise OSError(f"{folder}: cannot write shards: {error.message}") from error
        raise
    return Manifest(
        domain=domain.name,
        fingerprint=fingerprint(domain),
        image_dtype=settings.image_dtype,
        compression=settings.compression,
        cases=tuple(entry for writer in writers.values() for entry in writer.finish()),
        skipped=skipped,
    )


def _serialize(task: _Task) -> tuple[bytes, CaseEntry]:
    """One part as a record, and its entry in the manifest, the shard still unnamed."""
    from u2net_tf import records

    with np.load(task.part) as part:
        origin = json.loads(str(part["origin"]))
        image, labels = part["image"], part["labels"]
    num_classes = task.domain.num_classes
    coordinates, coordinate_counts = records.sample_coordinates(
        labels,
        num_classes,
        per_class=COORDINATES_PER_CLASS,
        seed=zlib.crc32(f"{task.domain.name}/{task.case.name}".encode()),
    )
    counts = np.bincount(labels.ravel(), minlength=num_classes)
    serialized = records.encode(
        records.Record(
            domain=task.domain.name,
            case=task.case.name,
            image=image,
            labels=labels,
            label_counts=counts,
            coordinates=coordinates,
            coordinate_counts=coordinate_counts,
        )
    )
    entry = CaseEntry(
        case=task.case.name,
        split=task.split,
        shard="",
        label_voxels=counts.tolist(),
        num_bytes=len(serialized),
        checksum=hashlib.sha256(serialized).hexdigest(),
        **origin,
    )
    return serialized, entry


def _remove_stale_shards(folder: pathlib.Path, manifest: Manifest) -> None:
    """Removes shards of an earlier conversion that the new manifest does not name."""
    kept = {entry.shard for entry in manifest.cases}
    for path in folder.glob("*.tfrecord"):
        if path.name not in kept:
            path.unlink()


def _report(data_dir: pathlib.Path, manifest: Manifest, *, done_before: bool) -> None:
    counts = ", ".join(
        f"{len(manifest.entries(split))} {split}"
        for split in SPLITS
        if manifest.entries(split)
    )
    size = sum(entry.num_bytes for entry in manifest.cases) / 1e6
    shards = sum(len(manifest.shards(split)) for split in SPLITS)
    folder = data_dir / manifest.domain
    note = " (was done already)" if done_before else ""
    print(f"{folder}: {counts} cases, {size:.1f} MB in {shards} shards{note}")
    for case, reason in manifest.skipped.items():
        print(f"  skipped {case}: {reason}")
