"""Writes part files to TFRecord shards, and the manifest that describes these.

Shards are written one record at a time, under temporary names; they and the manifest
replace older ones only when all of them are complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

from data_prep.config import ConversionConfig
from data_prep.convert.part_files import ConversionJob, load_part
from u2net_tf import files, system_errors, temporary_names
from u2net_tf.files import FileSignature
from u2net_tf.machine import import_tensorflow
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import (
    CaseEntry,
    Compression,
    Manifest,
    manifest_path,
    to_json,
)

# Maximum number of voxels per class that a record lists, to sample patches around.
COORDINATES_PER_CLASS = 1000


class ShardWriter:
    """Writes the shards of one group of cases under temporary names."""

    def __init__(
        self,
        folder: pathlib.Path,
        group: str,
        *,
        shard_size_mb: float,
        compression: Compression,
    ):
        self._folder = folder
        self._group = group
        self._shard_bytes = shard_size_mb * 1e6
        self._compression = compression
        self._shards: list[tuple[pathlib.Path, list[CaseEntry]]] = []
        self._writer: Any = None
        self._size = 0

    def write(self, serialized: bytes, entry: CaseEntry) -> None:
        """Appends a record; starts a new shard if the last one is full."""
        import tensorflow as tf

        from u2net_tf.shards.records import COMPRESSION_TYPES

        if self._writer is None or self._size >= self._shard_bytes:
            self.close()
            number = len(self._shards)
            path = temporary_names.temporary_path(
                self._folder / f"{self._group}-{number:05d}.tfrecord"
            )
            kind = COMPRESSION_TYPES[self._compression]
            self._shards.append((path, []))
            self._writer = tf.io.TFRecordWriter(str(path), kind)
            self._size = 0
        self._writer.write(serialized)
        self._shards[-1][1].append(entry)
        self._size += len(serialized)

    def close(self) -> None:
        """Closes the last shard."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            files.sync_file(self._shards[-1][0])

    def discard(self) -> None:
        """Removes all shards written so far."""
        self._writer = None
        for path, _ in self._shards:
            path.unlink(missing_ok=True)

    def entries(self) -> list[CaseEntry]:
        """Returns the entries of all records, with the final names of the shards."""
        return [
            dataclasses.replace(row, shard=self._final_name(number))
            for number, (_, rows) in enumerate(self._shards)
            for row in rows
        ]

    def finish(self) -> None:
        """Renames the shards to their final names."""
        self.close()
        for number, (path, _) in enumerate(self._shards):
            os.replace(path, self._folder / self._final_name(number))

    def _final_name(self, number: int) -> str:
        return f"{self._group}-{number:05d}-of-{len(self._shards):05d}.tfrecord"


def write_domain_shards(
    settings: ConversionConfig,
    domain: Domain,
    jobs: Sequence[ConversionJob],
    *,
    skipped: dict[str, str],
    signatures: dict[str, list[FileSignature]],
    progress: Progress = silent,
) -> Manifest:
    """Writes the parts of one domain to shards, and the manifest.

    Args:
      settings: folder of all domains, data type of the images in the parts, size and
        compression of the shards.
      domain: names the folder and provides the groups of cases.
      jobs: the cases whose parts exist, in the order of the shards.
      skipped: case -> reason.
      signatures: case -> signatures of the raw files, skipped or not.
      progress: shows how many cases are written.

    Returns:
      The manifest.

    Raises:
      OSError: if the disk is full; earlier shards are kept.
    """
    import_tensorflow()
    import tensorflow as tf

    path = manifest_path(settings.data_dir, domain.name)
    folder = path.parent
    writers = {
        group: ShardWriter(
            folder,
            group,
            shard_size_mb=settings.shard_size_mb,
            compression=settings.compression,
        )
        for group in domain.groups
    }
    bar = progress(jobs, f"{domain.name}: shards", unit="case", leave=False)
    try:
        for job in bar:
            serialized, entry = _serialize(job)
            writers[job.group].write(serialized, entry)
        for writer in writers.values():
            writer.close()
        entries = [entry for writer in writers.values() for entry in writer.entries()]
        manifest = _make_manifest(settings, domain, entries, skipped, signatures)
        content = to_json(manifest).encode()
    except BaseException as error:
        for writer in writers.values():
            writer.discard()
        if isinstance(error, tf.errors.OpError):
            # TensorFlow's file system raises a different class if the disk is full.
            raise system_errors.of_library(
                "TensorFlow", error.message, folder
            ) from error
        raise
    # If the run is interrupted from here on, no manifest is better than one that
    # describes other shards.
    path.unlink(missing_ok=True)
    files.sync_folder(folder)
    for writer in writers.values():
        writer.finish()
    _remove_stale_shards(folder, manifest)
    files.sync_folder(folder)
    with files.atomic_write(path) as partial:
        partial.write_bytes(content)
    return manifest


def _make_manifest(
    settings: ConversionConfig,
    domain: Domain,
    entries: Sequence[CaseEntry],
    skipped: dict[str, str],
    signatures: dict[str, list[FileSignature]],
) -> Manifest:
    return Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype=settings.image_dtype,
        compression=settings.compression,
        cases=tuple(entries),
        skipped=skipped,
        shard_size_mb=settings.shard_size_mb,
        raw_signatures=signatures,
        resample_modalities=settings.resample_modalities
        or domain.preprocessing.resample_modalities,
    )


def _serialize(job: ConversionJob) -> tuple[bytes, CaseEntry]:
    """Returns a part as a record, and its manifest entry without the shard."""
    from u2net_tf.shards import records

    part = load_part(job)
    coordinates, coordinate_counts = records.sample_coordinates(
        part.labels,
        job.domain.num_classes,
        partly_annotated=job.domain.ignore_index is not None,
        per_class=COORDINATES_PER_CLASS,
        seed=zlib.crc32(f"{job.domain.name}/{job.case.name}".encode()),
    )
    counts = records.count_labels(part.labels, job.domain.num_label_indices)
    serialized = records.encode(
        records.Record(
            domain=job.domain.name,
            case=job.case.name,
            image=part.image,
            labels=part.labels,
            label_counts=counts,
            coordinates=coordinates,
            coordinate_counts=coordinate_counts,
        )
    )
    entry = CaseEntry(
        case=job.case.name,
        group=job.group,
        shard="",
        label_voxels=counts.tolist(),
        num_bytes=len(serialized),
        checksum=hashlib.sha256(serialized).hexdigest(),
        **part.provenance,
    )
    return serialized, entry


def _remove_stale_shards(folder: pathlib.Path, manifest: Manifest) -> None:
    """Removes shards that the new manifest does not list, including hidden ones."""
    kept = {entry.shard for entry in manifest.cases}
    for path in folder.glob("*.tfrecord"):
        if path.name not in kept:
            path.unlink()
