import re

import pytest
import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.shards import manifest, reading, records

NAME = "Task90_Organ"
# Names of shards -> their cases.
SHARDS = {
    "test-00000-of-00001.tfrecord": ("d",),
    "train-00000-of-00002.tfrecord": ("b", "a"),
    "train-00001-of-00002.tfrecord": ("c",),
}


def make_entry(case, shard):
    return manifest.CaseEntry(
        case=case,
        group=shard.partition("-")[0],
        shard=shard,
        files=[],
        raw_shape=[1, 1, 1],
        raw_spacing_mm=[1, 1, 1],
        raw_orientation="RAS",
        raw_affine=[],
        crop_start=[0, 0, 0],
        crop_shape=[1, 1, 1],
        shape=[1, 1, 1],
        spacing_mm=[1, 1, 1],
        label_voxels=[1],
        num_bytes=1,
        checksum="-",
    )


def write_shards(data_dir, compression="none"):
    """Shards whose records are the names of their cases."""
    (data_dir / NAME).mkdir()
    kind = records.COMPRESSION_TYPES[compression]
    for shard, cases in SHARDS.items():
        with tf.io.TFRecordWriter(str(data_dir / NAME / shard), kind) as writer:
            for case in cases:
                writer.write(case.encode())
    return manifest.Manifest(
        domain=NAME,
        plan_hash="-",
        image_dtype="float32",
        compression=compression,
        cases=tuple(
            make_entry(case, shard) for shard, cases in SHARDS.items() for case in cases
        ),
        skipped={},
    )


def texts(dataset):
    return [record.decode() for record in dataset.as_numpy_iterator()]


@pytest.mark.parametrize("compression", manifest.COMPRESSIONS)
def test_records_come_in_the_order_of_the_shards(tmp_path, compression):
    made = write_shards(tmp_path, compression)
    for cases in ("bac", "d", ""):
        found = reading.serialized_records(tmp_path, made, set(cases))
        assert texts(found) == list(cases)


def test_shards_are_opened_in_the_order_given(tmp_path):
    write_shards(tmp_path)
    paths = [str(tmp_path / NAME / name) for name in reversed(SHARDS)]
    assert texts(reading.open_shards(paths, "none")) == ["c", "b", "a", "d"]


def test_paths_of_some_cases(tmp_path):
    made = write_shards(tmp_path)
    names = list(SHARDS)
    found = reading.shard_paths(tmp_path, made, ["c", "a", "b"])
    assert found == [str(tmp_path / NAME / name) for name in names[1:]]
    with pytest.raises(InputError, match="expected cases of one group"):
        reading.shard_paths(tmp_path, made, ["a"])


def test_missing_shard_is_an_error_that_names_it(tmp_path):
    made = write_shards(tmp_path)
    path = tmp_path / NAME / "train-00001-of-00002.tfrecord"
    path.unlink()
    words = f"{re.escape(str(path))}: expected a shard. Received: no such file"
    with pytest.raises(InputError, match=words):
        reading.serialized_records(tmp_path, made, ["a", "b", "c"])


class TestTranslateTfErrors:
    def test_the_damaged_shard_is_named(self, tmp_path):
        made = write_shards(tmp_path)
        path = tmp_path / NAME / "train-00000-of-00002.tfrecord"
        path.write_bytes(path.read_bytes()[:-3])
        words = f"{re.escape(str(path))}: expected a readable shard. .*data_prep.verify"
        with (
            pytest.raises(InputError, match=words),
            reading.translate_tf_errors(tmp_path, [made]),
        ):
            texts(reading.serialized_records(tmp_path, made, ["a", "b", "c"]))

    def test_records_that_are_none_in_shards_that_can_be_read(self, tmp_path):
        made = write_shards(tmp_path)
        words = f"{re.escape(str(tmp_path))}: {NAME}: expected records as the manifest"
        with (
            pytest.raises(InputError, match=words),
            reading.translate_tf_errors(tmp_path, [made]),
        ):
            records.parse(tf.constant(b"no record"))

    def test_other_errors_pass(self, tmp_path):
        with (
            pytest.raises(KeyError, match="other"),
            reading.translate_tf_errors(tmp_path, []),
        ):
            raise KeyError("other")


def test_cases_of_records_are_checked():
    reading.check_cases("data", NAME, {"a"}, {"a", "b"})
    words = f"data: {NAME}: expected records of .* Received: a record of c"
    with pytest.raises(InputError, match=words):
        reading.check_cases("data", NAME, {"a", "c"}, {"a", "b"})
