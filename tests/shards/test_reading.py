import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from small_shards import (
    DOMAIN,
    OTHER,
    TEST,
    TRAIN,
    make_record,
    write_data,
)

from u2net_tf.errors import InputError, StoppedError
from u2net_tf.shards import manifest, reading, records


@pytest.fixture(scope="module", params=manifest.COMPRESSIONS)
def intact(tmp_path_factory, request):
    return write_data(tmp_path_factory.mktemp("intact") / "data", request.param)


@pytest.fixture(scope="module")
def uncompressed(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("intact") / "data", "none")


@pytest.fixture
def data_dir(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "data")


@pytest.fixture
def plain_dir(uncompressed, tmp_path):
    return shutil.copytree(uncompressed, tmp_path / "plain")


def open_train(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    return reading.CaseShards(data_dir, DOMAIN, made, DOMAIN.train)


def cases_of(shards, **arguments):
    """Returns the names of the cases as training reads them."""
    with reading.translate_tf_errors([shards]):
        fields = shards.records(**arguments).map(shards.parse)
        return [each["case"].decode() for each in fields.as_numpy_iterator()]


def write_records(path, some, compression="none"):
    kind = records.COMPRESSION_TYPES[compression]
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        for each in some:
            writer.write(records.encode(each))


class TestCaseShards:
    def test_records_have_the_order_of_the_shards(self, intact):
        shards = open_train(intact)
        assert shards.paths == [str(intact / DOMAIN.name / TRAIN)]
        assert [entry.case for entry in shards.entries] == ["a", "b", "c"]
        assert cases_of(shards) == ["a", "b", "c"]
        assert cases_of(shards, skip=1) == ["b", "c"]

    def test_shards_are_read_in_the_order_given(self, intact):
        made = manifest.load_manifest(intact, DOMAIN.name)
        shards = reading.CaseShards(intact, DOMAIN, made, DOMAIN.train + DOMAIN.test)
        assert [os.path.basename(path) for path in shards.paths] == [TEST, TRAIN]
        assert cases_of(shards) == ["d", "a", "b", "c"]
        assert cases_of(shards, order=tf.constant([1, 0])) == ["a", "b", "c", "d"]
        assert cases_of(shards, order=tf.constant([1, 0]), skip=2) == ["c", "d"]

    def test_shards_with_other_cases_are_refused(self, intact):
        made = manifest.load_manifest(intact, DOMAIN.name)
        with pytest.raises(InputError, match="expected only cases of one group"):
            reading.CaseShards(intact, DOMAIN, made, ["a"])

    def test_a_missing_shard_is_reported(self, data_dir):
        path = data_dir / DOMAIN.name / TRAIN
        path.unlink()
        words = f"{re.escape(str(path))}: expected a shard. Received: no such file"
        with pytest.raises(InputError, match=words):
            open_train(data_dir)

    def test_images_keep_their_type(self, intact):
        shards = open_train(intact)
        ((row, serialized),) = shards.records().take(1)
        assert shards.parse(row, serialized)["image"].dtype == tf.float16


def with_one_record(path, compression):
    write_records(path, [make_record(DOMAIN, "a")], compression)


def empty(path, compression):
    path.write_bytes(b"")


def the_test_shard(path, compression):
    shutil.copy(path.with_name(TEST), path)


def truncated(path, compression):
    path.write_bytes(path.read_bytes()[:-5])


def longer(path, compression):
    path.write_bytes(path.read_bytes() + b"more")


def otherwise_compressed(path, compression):
    other = {"none": "gzip", "gzip": "none"}[compression]
    write_records(path, [make_record(DOMAIN, case) for case in "abc"], other)


def replace_by_folder(path, compression):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        with_one_record,
        empty,
        the_test_shard,
        truncated,
        longer,
        otherwise_compressed,
        replace_by_folder,
    ],
)
def test_wrong_sizes_are_detected_before_a_record_is_read(data_dir, spoil):
    path = data_dir / DOMAIN.name / TRAIN
    spoil(path, manifest.load_manifest(data_dir, DOMAIN.name).compression)
    with pytest.raises(InputError) as caught:
        open_train(data_dir)
    assert caught.value.where == str(path)
    assert "verify" in caught.value.hint or spoil is replace_by_folder


def test_the_truncated_case_is_reported(plain_dir):
    path = plain_dir / DOMAIN.name / TRAIN
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="truncated in the record of b"):
        open_train(plain_dir)


def test_the_wrong_compression_is_reported(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    otherwise_compressed(data_dir / DOMAIN.name / TRAIN, made.compression)
    words = {
        "none": r"Received: \d+, compressed with gzip",
        "gzip": r"compressed with gzip. Received: \d+ uncompressed bytes",
    }
    with pytest.raises(InputError, match=words[made.compression]):
        open_train(data_dir)


def test_a_shard_without_read_permission(data_dir, monkeypatch):
    path = data_dir / DOMAIN.name / TRAIN

    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(path))

    made = manifest.load_manifest(data_dir, DOMAIN.name)
    monkeypatch.setattr("pathlib.Path.open", refuse)
    words = f"{re.escape(str(path))}: expected a readable shard. Received: Permission"
    with pytest.raises(InputError, match=words):
        reading.CaseShards(data_dir, DOMAIN, made, DOMAIN.train)


def swapped(path):
    write_records(path, [make_record(DOMAIN, case) for case in "bac"])


def duplicated(path):
    write_records(path, [make_record(DOMAIN, case) for case in "aac"])


def of_another_domain(path):
    write_records(path, [make_record(OTHER, case) for case in "abc"])


def of_another_split(path):
    write_records(path, [make_record(DOMAIN, case) for case in "dbc"])


def with_the_first(**change):
    """Returns a function that writes a shard with a modified first record."""

    def write(path):
        first, *others = (make_record(DOMAIN, case) for case in "abc")
        changes = {name: make(first) for name, make in change.items()}
        write_records(path, [dataclasses.replace(first, **changes), *others])

    return write


def flipped(path):
    content = bytearray(path.read_bytes())
    content[99] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def cut_between_records(path):
    write_records(path, [make_record(DOMAIN, case) for case in "ab"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (swapped, "a: expected a record of this case. Received: one of b"),
        (duplicated, "b: expected a record of this case. Received: one of a"),
        (of_another_domain, "a: expected a record of Task90_Organ. Received: one of "),
        (of_another_split, "a: expected a record of this case. Received: one of d"),
        (
            # One modality with twice as many bytes per voxel.
            with_the_first(image=lambda record: record.image[..., :1].astype("f4")),
            "a: expected voxels as float16. Received: float32",
        ),
        (
            with_the_first(
                image=lambda record: record.image.swapaxes(0, 1),
                labels=lambda record: record.labels.swapaxes(0, 1),
            ),
            "a: expected shape (4, 5, 6, 2). Received: (5, 4, 6, 2)",
        ),
        (
            with_the_first(labels=lambda record: record.labels + record.labels),
            "a: expected [",
        ),
        (
            with_the_first(label_counts=lambda record: record.label_counts[::-1]),
            "a: expected stored label counts [",
        ),
        (flipped, "a: expected a readable record. Received: corrupt data"),
        (emptied, "expected "),
        (cut_between_records, "expected "),
        (os.unlink, "expected a shard. Received: no such file"),
    ],
)
def test_wrong_records_are_detected_while_reading(plain_dir, spoil, words):
    path = plain_dir / DOMAIN.name / TRAIN
    shards = open_train(plain_dir)
    spoil(path)
    with pytest.raises(InputError) as caught:
        cases_of(shards)
    assert str(caught.value).startswith(f"{path}: {words}")
    if spoil not in (emptied, cut_between_records, os.unlink):
        # The size is correct.
        open_train(plain_dir)


def test_reading_ends_if_records_are_missing(plain_dir):
    path = plain_dir / DOMAIN.name / TRAIN
    shards = open_train(plain_dir)
    path.write_bytes(b"")
    rows = [row for row, serialized in shards.records().as_numpy_iterator()]
    assert rows == [0, 1, 2]


def test_check_tests_every_voxel(plain_dir):
    path = plain_dir / DOMAIN.name / TRAIN
    shards = open_train(plain_dir)
    shards.check()
    image = np.full((4, 5, 6, 2), np.nan, np.float16)
    with_the_first(image=lambda record: image)(path)
    # Reading does not test voxels, which would take as long as parsing.
    assert cases_of(shards) == ["a", "b", "c"]
    shards.check(["b", "c"])
    for cases in (None, ["a"]):
        with pytest.raises(InputError, match=f"{TRAIN}: a: expected finite voxels"):
            shards.check(cases)


class TestCheckUnchanged:
    def test_an_unchanged_file_with_a_new_time(self, plain_dir, caplog):
        path = plain_dir / DOMAIN.name / TRAIN
        shards = open_train(plain_dir)
        os.utime(path, ns=(0, 0))
        with caplog.at_level("INFO", logger="absl"):
            shards.check_unchanged()
            assert (
                caplog.text.count("has been modified; checking its records again") == 1
            )
            shards.check_unchanged()
            assert (
                caplog.text.count("has been modified; checking its records again") == 1
            )

    def test_a_different_file_of_the_same_size(self, plain_dir):
        path = plain_dir / DOMAIN.name / TRAIN
        shards = open_train(plain_dir)
        with_the_first(image=lambda record: record.image + 1)(path)
        os.utime(path, ns=(0, 0))
        with pytest.raises(InputError, match=f"{TRAIN}: a: expected checksum"):
            shards.check_unchanged()


class TestTranslateTfErrors:
    def test_the_damaged_shard_is_reported(self, plain_dir):
        path = plain_dir / DOMAIN.name / TRAIN
        shards = open_train(plain_dir)
        path.write_bytes(path.read_bytes()[:-3])
        words = "truncated in the record of c. .*data_prep.verify"
        with (
            pytest.raises(InputError, match=words),
            reading.translate_tf_errors([shards]),
        ):
            raise tf.errors.DataLossError(None, None, "truncated")

    def test_an_error_with_another_cause(self, plain_dir):
        words = f"{plain_dir / DOMAIN.name}: expected records that match the manifest. "
        with (
            pytest.raises(InputError, match=f"{words}Received: it is  ?unknown"),
            reading.translate_tf_errors([open_train(plain_dir)]),
        ):
            raise tf.errors.UnknownError(None, None, "it is\nunknown")

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("it is\nout of memory", "memory"),
            ("a; Too many open files", "file handles"),
        ],
    )
    def test_resources_that_do_not_suffice(self, plain_dir, monkeypatch, text, what):
        monkeypatch.setattr(reading.CaseShards, "check", None)
        start = f"{plain_dir / DOMAIN.name}: expected enough {what} to read records"
        words = f"{start} .* Received: {' '.join(text.split())}"
        with (
            pytest.raises(StoppedError, match=words),
            reading.translate_tf_errors([open_train(plain_dir)]),
        ):
            raise tf.errors.ResourceExhaustedError(None, None, text)

    def test_other_errors_are_not_translated(self):
        with (
            pytest.raises(KeyError, match="other"),
            reading.translate_tf_errors([]),
        ):
            raise KeyError("other")
