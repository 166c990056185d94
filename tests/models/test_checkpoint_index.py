"""The checkpoint reader without TensorFlow, compared with TensorFlow's."""

import contextlib
import random

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.models.checkpoint_index import CheckpointIndex, DamagedCheckpointError

# Long enough to take more than one block of the index.
TENSORS = {
    f"network/layer_{index}/kernel_{index % 3}": np.full((3, index + 1), index, "f")
    for index in range(300)
} | {"steps": np.int64(7), "text": "größer " * 50, "several": np.array(["a", "b"])}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "step-7"
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(TENSORS),
        shape_and_slices=[""] * len(TENSORS),
        tensors=[tf.constant(value) for value in TENSORS.values()],
    )
    return path


def test_names_and_shapes(path):
    shapes = tf.train.load_checkpoint(str(path)).get_variable_to_shape_map()
    entries = CheckpointIndex(path).entries
    assert {name: list(entry.shape) for name, entry in entries.items()} == shapes


def test_texts(path):
    index = CheckpointIndex(path)
    assert index.text("text").decode() == TENSORS["text"]
    for name in ("several", "steps", "other"):
        with pytest.raises(DamagedCheckpointError, match=f"no text '{name}'"):
            index.text(name)


def copy_of(path, folder):
    for part in path.parent.iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    return folder / path.name


def read(path):
    index = CheckpointIndex(path)
    return index.entries, index.text("text")


def test_every_flipped_bit_is_noticed(path, tmp_path):
    intact, copy = read(path), copy_of(path, tmp_path)
    index = tmp_path / "step-7.index"
    data = index.read_bytes()
    generator = random.Random(0)
    # The complete footer, and some of the rest.
    positions = [*generator.sample(range(len(data) - 48), 40), *range(-48, 0)]
    for position in positions:
        edited = bytearray(data)
        edited[position] ^= 1 << generator.randrange(8)
        index.write_bytes(edited)
        # Some bytes, such as the padding of the footer, have no meaning.
        with contextlib.suppress(DamagedCheckpointError):
            assert read(copy) == intact


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_truncated(path, tmp_path, suffix, fraction):
    copy = copy_of(path, tmp_path)
    part = tmp_path / f"step-7.{suffix}"
    data = part.read_bytes()
    part.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(DamagedCheckpointError, match="truncated or corrupt"):
        CheckpointIndex(copy)


def test_an_edited_text(path, tmp_path):
    copy = copy_of(path, tmp_path)
    part = tmp_path / "step-7.data-00000-of-00001"
    part.write_bytes(
        part.read_bytes().replace("größer".encode(), "grösser".encode(), 1)
    )
    with pytest.raises(
        DamagedCheckpointError, match="checksum of 'text' does not match"
    ):
        CheckpointIndex(copy).text("text")


def test_missing_values(path, tmp_path):
    copy = copy_of(path, tmp_path)
    (tmp_path / "step-7.data-00000-of-00001").unlink()
    with pytest.raises(DamagedCheckpointError, match="0 of .* bytes in step-7.data"):
        CheckpointIndex(copy)
