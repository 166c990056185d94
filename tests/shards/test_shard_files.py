import pathlib

import pytest
from small_shards import DOMAIN, TRAIN, write_data

from u2net_tf.errors import InputError
from u2net_tf.shards import manifest, shard_files


@pytest.mark.parametrize("compression", manifest.COMPRESSIONS)
def test_files_of_a_domain(tmp_path, compression):
    folder = write_data(tmp_path, compression) / DOMAIN.name
    made = manifest.load_manifest(tmp_path, DOMAIN.name)
    shard_files.check_shard_files(folder, made)
    path = folder / TRAIN
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError) as caught:
        shard_files.check_shard_files(folder, made)
    assert caught.value.where == str(path)


def test_entries_have_the_order_of_the_shards(tmp_path):
    write_data(tmp_path, "none")
    made = manifest.load_manifest(tmp_path, DOMAIN.name)
    cases = {
        name: [entry.case for entry in entries]
        for name, entries in shard_files.entries_by_shard(made, "abcd").items()
    }
    assert list(cases.values()) == [["d"], ["a", "b", "c"]]
    assert list(cases) == sorted(cases)


def test_a_record_length_that_looks_like_gzip(tmp_path):
    """The first bytes of a shard are the length of its first record."""
    write_data(tmp_path, "none")
    (entry, *_) = manifest.load_manifest(tmp_path, DOMAIN.name).cases
    path = pathlib.Path(tmp_path / "shard")
    path.write_bytes(b"\x1f\x8b\x08" + bytes(entry.num_bytes + 16 - 3))
    shard_files.check_shard_file(path, [entry], "none")
