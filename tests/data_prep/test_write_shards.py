"""Completion of shards; `test_convert.py` tests their content."""

import errno

import pytest
import tensorflow as tf

from data_prep.convert.write_shards import ShardWriter


def test_a_shard_that_cannot_be_completed_is_not_renamed(tmp_path, monkeypatch):
    """The last bytes of a file may be written when it is closed."""

    class FullDisk(tf.io.TFRecordWriter):
        def close(self):
            super().close()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", FullDisk)
    writer = ShardWriter(tmp_path, "train", shard_size_mb=1, compression="none")
    writer.write(b"record", entry=None)
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    assert not list(tmp_path.glob("train*"))
    writer.discard()
    assert not list(tmp_path.iterdir())
