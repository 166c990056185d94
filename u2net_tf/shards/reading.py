"""Reading shards, and comparing them with what their manifest says.

Before the first record their sizes are compared; a record's domain, case, type, shape
and classes as it is read. What TensorFlow says of a damaged shard names neither the
shard nor the case: `translate_tf_errors` looks for them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import CaseEntry, Compression, Manifest
from u2net_tf.shards.record_checks import check_record
from u2net_tf.shards.records import COMPRESSION_TYPES, Fields, parse
from u2net_tf.shards.shard_files import VERIFY, check_shard_file, entries_by_shard
from u2net_tf.wording import quantity

# TensorFlow warns where it is left to choose.
_BUFFER_BYTES = 1 << 20


def open_shards(
    paths: str | Sequence[str] | tf.Tensor, compression: Compression
) -> tf.data.Dataset:
    """The serialized records of some shards, one shard after the other.

    Args:
      paths: of the shards, in this order.
      compression: of the manifest.

    Returns:
      A `tf.data.Dataset` of scalar strings.
    """
    kind = COMPRESSION_TYPES[compression]
    return tf.data.TFRecordDataset(paths, kind, buffer_size=_BUFFER_BYTES)


class CaseShards:
    """The shards of some cases of a domain, and what the manifest says of them.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      domain: the domain.
      manifest: of its shards.
      cases: all cases of a group of the plan, or of several groups.

    Attributes:
      folder: of the shards.
      paths: of the shards, sorted by name.
      entries: of the records, in the order in which they lie in the shards.

    Raises:
      InputError: if a shard is missing, cannot be read or has another size than its
        records, or also holds other cases.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        domain: Domain,
        manifest: Manifest,
        cases: Collection[str],
    ):
        self._domain = domain
        self._manifest = manifest
        self.folder = pathlib.Path(data_dir) / domain.name
        self._entries = {
            str(self.folder / name): entries
            for name, entries in entries_by_shard(manifest, cases).items()
        }
        self.paths = list(self._entries)
        self.entries = [e for entries in self._entries.values() for e in entries]
        self._signatures = files.file_signatures(self.paths)
        for path, entries in self._entries.items():
            check_shard_file(path, entries, manifest.compression)

    def records(
        self, order: tf.Tensor | None = None, *, skip: tf.Tensor | int = 0
    ) -> tf.data.Dataset:
        """The serialized records, each with its number.

        Args:
          order: (S,) int32, indices of shards in the order in which they are read; that
            of `paths` if None.
          skip: how many records to leave out at the start; they are not read.

        Returns:
          A `tf.data.Dataset` of (index of the entry, serialized record); the record is
          "" where there are fewer than the manifest says.
        """
        paths = tf.constant(self.paths, tf.string)
        if order is None:
            order = tf.range(len(self.paths))
        counts = tf.constant([len(each) for each in self._entries.values()], tf.int32)
        ends = tf.gather(tf.cumsum(counts), order)
        rows = tf.ragged.range(ends - tf.gather(counts, order), ends).flat_values
        found = open_shards(tf.gather(paths, order), self._manifest.compression)
        # Otherwise an endless loop over empty shards would wait for a record for ever.
        missing = tf.data.Dataset.from_tensors("").repeat()
        return tf.data.Dataset.zip(
            tf.data.Dataset.from_tensor_slices(rows).skip(skip),
            found.skip(skip).concatenate(missing),
        )

    def parse(self, row: tf.Tensor, serialized: tf.Tensor) -> Fields:
        """Parses a record, and compares it with its entry as far as that is cheap.

        Args:
          row: index of its entry.
          serialized: the record.

        Returns:
          The fields of `Record` as tensors, the image in the type of the manifest.

        Raises:
          tf.errors.InvalidArgumentError: if it is another one.
        """
        fields = parse(serialized, image_dtype=self._manifest.image_dtype)
        shape = (*fields["labels"].shape[:3], self._domain.num_modalities)
        fields["image"] = tf.ensure_shape(fields["image"], shape)
        check = tf.debugging.Assert(
            self._is_expected(row, serialized, fields),
            ["another record than that of the manifest's row ", row],
        )
        # Eagerly it has been done by now and is None.
        with tf.control_dependencies([] if check is None else [check]):
            return {key: tf.identity(value) for key, value in fields.items()}

    def _is_expected(
        self, row: tf.Tensor, serialized: tf.Tensor, fields: Fields
    ) -> tf.Tensor:
        """Whether a record is that of its entry, without looking at the image."""

        def of_entries(values: Iterable[Any], dtype: tf.DType) -> tf.Tensor:
            return tf.gather(tf.constant(list(values), dtype), row)

        size = of_entries((entry.num_bytes for entry in self.entries), tf.int32)
        case = of_entries((entry.case for entry in self.entries), tf.string)
        shape = of_entries((entry.shape for entry in self.entries), tf.int32)
        counts = of_entries((entry.label_voxels for entry in self.entries), tf.int64)
        last_class = tf.cast(tf.reduce_max(fields["labels"]), tf.int32)
        return (
            (fields["domain"] == self._domain.name)
            & (fields["case"] == case)
            & (tf.strings.length(serialized) == size)
            & tf.reduce_all(tf.shape(fields["labels"]) == shape)
            & tf.reduce_all(fields["label_counts"] == counts)
            & (last_class < self._domain.num_classes)
        )

    def check(self, cases: Collection[str] | None = None) -> None:
        """Reads records and checks every voxel.

        Args:
          cases: whose records are checked; all if None.

        Raises:
          InputError: names the shard, and the case whose record is not as it should be.
        """
        for path, entries in self._entries.items():
            if cases is None or any(entry.case in cases for entry in entries):
                self._check_shard(path, cases)

    def check_unchanged(self) -> None:
        """Checks that the shards are those that were there at first.

        Those with another size or time of last change are read.

        Raises:
          InputError: names the shard, and the case whose record has changed.
        """
        before = self._signatures
        self._signatures = files.file_signatures(self.paths)
        for path, old, new in zip(self.paths, before, self._signatures, strict=True):
            if old != new:
                logging.info("%s has been written to; comparing its records", path)
                self._check_shard(path)

    def _check_shard(self, path: str, cases: Collection[str] | None = None) -> None:
        problems = shard_problems(
            path, self._entries[path], self._domain, self._manifest, cases=cases
        )
        for problem in problems:
            raise problem


def shard_problems(
    path: str | os.PathLike,
    entries: Sequence[CaseEntry],
    domain: Domain,
    manifest: Manifest,
    *,
    cases: Collection[str] | None = None,
) -> Iterator[InputError]:
    """Reads a shard and yields its differences from the manifest.

    Args:
      path: of the shard.
      entries: of its records, in order.
      domain: the domain.
      manifest: of the domain's shards.
      cases: whose records are checked; all if None.
    """
    try:
        check_shard_file(path, entries, manifest.compression)
    except InputError as error:
        yield error
        return
    count = 0
    try:
        for count, serialized in enumerate(
            open_shards(str(path), manifest.compression).as_numpy_iterator(), start=1
        ):
            if count > len(entries):
                break
            entry = entries[count - 1]
            if cases is None or entry.case in cases:
                try:
                    check_record(serialized, entry, domain, manifest.image_dtype)
                except InputError as error:
                    yield error.within(path, hint=VERIFY)
    except tf.errors.OpError as error:
        damaged = isinstance(error, tf.errors.DataLossError)
        yield InputError(
            f"{path}: {entries[min(count, len(entries) - 1)].case}",
            expected="a readable record",
            received="damaged bytes" if damaged else _in_one_line(error),
            hint=VERIFY,
        )
        return
    if count != len(entries):
        more = f"more than {len(entries)}"
        yield InputError(
            path,
            expected=quantity(len(entries), "record"),
            received=more if count > len(entries) else count,
            hint=VERIFY,
        )


@contextlib.contextmanager
def translate_tf_errors(shards: Sequence[CaseShards]) -> Iterator[None]:
    """Turns TensorFlow's errors of reading into one that names the damaged shard.

    Args:
      shards: those that are read inside.

    Raises:
      InputError: names the shard.
    """
    try:
        yield
    except tf.errors.OpError as error:
        logging.info("a shard cannot be used; looking for it")
        for each in shards:
            each.check()
        raise InputError(
            ", ".join(str(each.folder) for each in shards),
            expected="records as the manifest says",
            received=_in_one_line(error),
            hint=VERIFY,
        ) from error


def _in_one_line(error: tf.errors.OpError) -> str:
    return " ".join(error.message.split())[-300:]
