"""A step of one domain does not change a bit of any other domain."""

import contextlib
import functools

import numpy as np
import pytest
import round_robin
import tensorflow as tf

from u2net_tf.networks import ops

# The paper's mode; the others are slow.
SEPARABLE_FIRST = [
    mode if mode == "separable" else pytest.param(mode, marks=pytest.mark.slow)
    for mode in round_robin.MODES
]


@contextlib.contextmanager
def eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(
    scope="module",
    params=["plain", pytest.param("xla", marks=pytest.mark.slow)],
    autouse=True,
)
def implementation(request):
    """The implementation, which must not affect which optimizer trains a variable."""
    with ops.use_implementation(request.param):
        yield request.param


@pytest.fixture(scope="module")
def train_compiled(implementation):
    """Takes a mode; returns the trainer and losses after rounds of compiled steps."""

    @functools.cache
    def train(mode):
        trainer = round_robin.make_trainer(mode)
        return trainer, round_robin.train(trainer)

    return train


@pytest.fixture(scope="module")
def train_eagerly(implementation):
    """Like `train_compiled`, but eagerly: tracing takes longer than so few steps."""

    @functools.cache
    def train(mode):
        with eagerly():
            trainer = round_robin.make_trainer(mode)
            return trainer, round_robin.train(trainer)

    return train


def assert_close(found, expected):
    """Compares the copies of every replica with that of a single replica."""
    assert len(found) == len(expected)
    for copies, (single,) in zip(found, expected, strict=True):
        for copy in copies:
            np.testing.assert_allclose(copy, single, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", SEPARABLE_FIRST)
def test_every_optimizer_has_its_own_step_count(mode, train_eagerly):
    trainer, _ = train_eagerly(mode)
    rounds = round_robin.NUM_ROUNDS
    assert int(trainer.shared_optimizer.iterations) == 2 * rounds
    for domain in (0, 1):
        assert int(trainer.domain_optimizers[domain].iterations) == rounds


@pytest.mark.parametrize("mode", SEPARABLE_FIRST)
def test_every_variable_has_exactly_one_optimizer(mode, train_eagerly):
    trainer, _ = train_eagerly(mode)
    network = trainer.network

    def optimized_by(optimizer):
        return [variable.path for variable in optimizer._trainable_variables]

    assert optimized_by(trainer.shared_optimizer) == [
        v.path for v in network.shared_variables
    ]
    for domain in (0, 1):
        own = [variable.path for variable in network.domain_variables(domain)]
        assert optimized_by(trainer.domain_optimizers[domain]) == own
    every = [
        path for optimizer in trainer.optimizers for path in optimized_by(optimizer)
    ]
    assert sorted(every) == sorted(v.path for v in network.trainable_variables)


@pytest.mark.parametrize(
    "mode",
    [
        round_robin.TOY,
        *(pytest.param(mode, marks=pytest.mark.slow) for mode in round_robin.MODES),
    ],
)
def test_eager_steps_equal_compiled_ones(mode, train_compiled, train_eagerly):
    trainer, losses = train_compiled(mode)
    eager, eager_losses = train_eagerly(mode)
    np.testing.assert_allclose(eager_losses, losses, rtol=1e-9)
    assert_close(
        round_robin.values_of_trainer(eager), round_robin.values_of_trainer(trainer)
    )


@pytest.mark.parametrize(
    ("what", "implementation", "modes"),
    [
        ("round_robin", "plain", (round_robin.TOY,)),
        ("modules", "plain", (round_robin.TOY,)),
        # Each replica has a thread, which uses the default implementation.
        pytest.param("round_robin", "xla", round_robin.MODES, marks=pytest.mark.slow),
        *(
            pytest.param("modules", "plain", (mode,), marks=pytest.mark.slow)
            for mode in ("separable", "none", round_robin.SHARP)
        ),
    ],
    indirect=["implementation"],
)
def test_two_replicas_equal_one(
    what, modes, tmp_path, train_compiled, run_two_replicas
):
    run_two_replicas(what, tmp_path, *modes)
    for mode in modes:
        trainer, losses = train_compiled(mode)
        with np.load(tmp_path / f"{mode}.npz") as archive:
            first, *found = (archive[f"arr_{index}"] for index in range(len(archive)))
        np.testing.assert_allclose(first, losses, rtol=1e-9)
        assert all(len(copies) == 2 for copies in found)
        assert_close(found, round_robin.values_of_trainer(trainer))


@pytest.mark.parametrize("mode", SEPARABLE_FIRST)
@pytest.mark.slow
def test_without_decay(mode):
    with eagerly():
        round_robin.train(round_robin.make_trainer(mode, weight_decay=0.0))
