"""Reads shards and compares them with their manifest.

File sizes are checked before the first record is read; domain, case, type, shape and
classes of a record are checked when it is read. TensorFlow's errors about damaged
shards name neither the shard nor the case: `translate_tf_errors` finds both.
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
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import CaseEntry, Compression, Manifest
from u2net_tf.shards.record_checks import check_record
from u2net_tf.shards.records import COMPRESSION_TYPES, Fields, parse
from u2net_tf.shards.shard_files import VERIFY, check_shard_file, entries_by_shard
from u2net_tf.wording import quantity

# Set explicitly, since TensorFlow warns if it has to choose.
_BUFFER_BYTES = 1 << 20


def open_shards(
    paths: str | Sequence[str] | tf.Tensor, compression: Compression
) -> tf.data.Dataset:
    """Returns the serialized records of shards, one shard after the other.

    Args:
      paths: paths of the shards, in this order.
      compression: compression according to the manifest.

    Returns:
      A `tf.data.Dataset` of scalar strings.
    """
    kind = COMPRESSION_TYPES[compression]
    return tf.data.TFRecordDataset(paths, kind, buffer_size=_BUFFER_BYTES)


class CaseShards:
    """The shards of some cases of a domain, with their manifest entries.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      domain: the domain as planned.
      manifest: manifest of its shards.
      cases: all cases of one or several groups of the plan.

    Attributes:
      folder: folder of the shards.
      paths: paths of the shards, sorted by name.
      entries: manifest entries of the records, in the order of the shards.

    Raises:
      InputError: if a shard is missing or unreadable, does not have the size of its
        records, or also contains other cases.
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
        """Returns the serialized records, each with the index of its entry.

        Args:
          order: (S,) int32, indices of shards in the order in which to read them; the
            order of `paths` if None.
          skip: number of records to skip at the start.

        Returns:
          A `tf.data.Dataset` of (index of the entry, serialized record). The record is
          "" if the shards contain fewer records than the manifest.
        """
        paths = tf.constant(self.paths, tf.string)
        if order is None:
            order = tf.range(len(self.paths))
        counts = tf.constant([len(each) for each in self._entries.values()], tf.int32)
        ends = tf.gather(tf.cumsum(counts), order)
        rows = tf.ragged.range(ends - tf.gather(counts, order), ends).flat_values
        found = open_shards(tf.gather(paths, order), self._manifest.compression)
        # Without it, an endless loop over empty shards would wait for a record forever.
        missing = tf.data.Dataset.from_tensors("").repeat()
        return tf.data.Dataset.zip(
            tf.data.Dataset.from_tensor_slices(rows).skip(skip),
            found.skip(skip).concatenate(missing),
        )

    def parse(self, row: tf.Tensor, serialized: tf.Tensor) -> Fields:
        """Parses a record and compares it with its entry, except for the image.

        Args:
          row: index of its entry.
          serialized: the record.

        Returns:
          The fields of `Record` as tensors, the image in the type of the manifest.

        Raises:
          tf.errors.InvalidArgumentError: if the record does not match its entry.
        """
        fields = parse(serialized, image_dtype=self._manifest.image_dtype)
        shape = (*fields["labels"].shape[:3], self._domain.num_modalities)
        fields["image"] = tf.ensure_shape(fields["image"], shape)
        check = tf.debugging.Assert(
            self._is_expected(row, serialized, fields),
            ["the record does not match the manifest's row ", row],
        )
        # None in eager mode, in which the assertion has already been checked.
        with tf.control_dependencies([] if check is None else [check]):
            return {key: tf.identity(value) for key, value in fields.items()}

    def _is_expected(
        self, row: tf.Tensor, serialized: tf.Tensor, fields: Fields
    ) -> tf.Tensor:
        """Returns whether a record matches its entry; the image is not compared."""

        def for_row(values: Iterable[Any], dtype: tf.DType) -> tf.Tensor:
            return tf.gather(tf.constant(list(values), dtype), row)

        size = for_row((entry.num_bytes for entry in self.entries), tf.int32)
        case = for_row((entry.case for entry in self.entries), tf.string)
        shape = for_row((entry.shape for entry in self.entries), tf.int32)
        counts = for_row((entry.label_voxels for entry in self.entries), tf.int64)
        last_class = tf.cast(tf.reduce_max(fields["labels"]), tf.int32)
        return (
            (fields["domain"] == self._domain.name)
            & (fields["case"] == case)
            & (tf.strings.length(serialized) == size)
            & tf.reduce_all(tf.shape(fields["labels"]) == shape)
            & tf.reduce_all(fields["label_counts"] == counts)
            & (last_class < self._domain.num_label_indices)
        )

    def check(self, cases: Collection[str] | None = None) -> None:
        """Reads records and checks every voxel.

        Args:
          cases: cases whose records are checked; all if None.

        Raises:
          InputError: if a record does not match its entry; names shard and case.
        """
        for path, entries in self._entries.items():
            if cases is None or any(entry.case in cases for entry in entries):
                self._check_shard(path, cases)

    def check_unchanged(self) -> None:
        """Checks that the shards have not changed since this object was created.

        Shards whose size or modification time has changed are read again.

        Raises:
          InputError: if a record has changed; names shard and case.
        """
        before = self._signatures
        self._signatures = files.file_signatures(self.paths)
        for path, old, new in zip(self.paths, before, self._signatures, strict=True):
            if old != new:
                logging.info("%s has been modified; checking its records again", path)
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
      path: path of the shard.
      entries: manifest entries of its records, in order.
      domain: provides modalities and classes of the records.
      manifest: manifest of the domain's shards.
      cases: cases whose records are checked; all if None.
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
            received="corrupt data" if damaged else _on_one_line(error),
            hint=VERIFY,
        )
        return
    if count != len(entries):
        too_many = f"more than {len(entries)}"
        yield InputError(
            path,
            expected=quantity(len(entries), "record"),
            received=too_many if count > len(entries) else count,
            hint=VERIFY,
        )


@contextlib.contextmanager
def translate_tf_errors(shards: Sequence[CaseShards]) -> Iterator[None]:
    """Translates TensorFlow's read errors into one that names the damaged shard.

    Args:
      shards: the shards that are read inside the context.

    Raises:
      InputError: in place of a TensorFlow error.
      StoppedError: instead, if memory or the number of open files did not suffice.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        folders = ", ".join(str(each.folder) for each in shards)
        text = _on_one_line(error)
        # Also the error if a process opens more files than it may.
        what = "file handles" if "open files" in text else "memory"
        raise StoppedError(
            f"{folders}: expected enough {what} to read records and make batches of "
            f"them. Received: {text}"
        ) from error
    except tf.errors.OpError as error:
        logging.info("reading a shard failed; checking all shards")
        for each in shards:
            each.check()
        raise InputError(
            ", ".join(str(each.folder) for each in shards),
            expected="records that match the manifest",
            received=_on_one_line(error),
            hint=VERIFY,
        ) from error


def _on_one_line(error: tf.errors.OpError) -> str:
    return " ".join(error.message.split())[-300:]
