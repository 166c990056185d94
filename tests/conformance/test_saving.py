"""Saved and restored layers are bit-identical."""

import keras
import pytest
import table
import tensorflow as tf
import toy
from table import TABLE

from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.loading import load_network
from u2net_tf.models.run_state import RunState

pytestmark = pytest.mark.usefixtures("plain_implementation")

NETWORKS = [name for name, row in TABLE.items() if row.spec]
LAYERS = [name for name in TABLE if name not in NETWORKS]


def assert_same(row, layer, twin):
    toy.assert_identical(toy.values_of(twin.variables), toy.values_of(layer.variables))
    for domain in range(row.num_domains):
        inputs = table.draw_inputs(row, domain)
        toy.assert_identical(
            [twin(*inputs, domain=domain)], [layer(*inputs, domain=domain)]
        )


# Networks only; the checkpoints below test the names of variables in layers.
@pytest.mark.parametrize("name", table.rows(NETWORKS))
def test_weights_file(name, tmp_path):
    row = TABLE[name]
    layer, twin = (table.build(row, seed=seed) for seed in (0, 1))
    keras.saving.save_weights(layer, tmp_path / "of.weights.h5")
    keras.saving.load_weights(twin, tmp_path / "of.weights.h5")
    assert_same(row, layer, twin)


@pytest.mark.parametrize("name", table.rows(LAYERS))
def test_checkpoint_of_a_layer(name, tmp_path):
    row = TABLE[name]
    layer, twin = (table.build(row, seed=seed) for seed in (0, 1))
    path = tf.train.Checkpoint(layer=layer).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(layer=twin).read(path).assert_consumed()
    assert_same(row, layer, twin)


@pytest.mark.parametrize("name", table.rows(NETWORKS))
def test_checkpoints_of_a_run(name, tmp_path):
    row = TABLE[name]
    network, twin = (table.build(row, "float32", seed=seed) for seed in (0, 1))
    saved = Checkpoints(tmp_path, row.spec, network, {}, keep=1)
    path = saved.save(RunState(3))
    resumed = Checkpoints(tmp_path, row.spec, twin, {}, keep=1)
    assert resumed.restore().step == 3
    assert_same(row, network, twin)
    spec, loaded, found = load_network(tmp_path)
    assert (spec, found) == (row.spec, path)
    assert_same(row, network, loaded)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_spec_describes_the_network(name):
    row = TABLE[name]
    expected = row.make(name="mine", dtype="float64")
    # Gradient checkpointing is a way of computing, not part of the spec.
    network = build_network(
        row.spec,
        name="mine",
        dtype="float64",
        gradient_checkpointing=expected.gradient_checkpointing,
    )
    assert network.get_config() == expected.get_config()
