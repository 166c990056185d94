"""Compares this project with tensorflow-addons, which has its own environment.

Both compute in float64 from the same numbers. `make test-oracle` makes the environment,
in which `tfa_values.py` runs.
"""

import functools
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf import losses
from u2net_tf.networks import ops
from u2net_tf.networks.layers import DomainNorm
from u2net_tf.training.step import Trainer

HERE = pathlib.Path(__file__).parent


def find_python():
    """Returns the path of the oracle's Python; skips this module if there is none."""
    path = os.environ.get("U2NET_ORACLE_PYTHON")
    if path:
        return path
    folder = HERE.parents[1] / ".venv-oracle"
    # The stamp is written last: without it, the environment is incomplete.
    if not (folder / ".installed").is_file():
        pytest.skip(
            "no environment with tensorflow-addons: `make test-oracle` makes it",
            allow_module_level=True,
        )
    return str(folder / "bin" / "python")


PYTHON = find_python()


def draw_norm(shape, *, epsilon=1e-5, negative_slope=1.0, constant_channel=False):
    generator = np.random.default_rng(shape)
    inputs = 3.0 * generator.normal(size=shape) + 5.0 * generator.normal(size=shape[-1])
    if constant_channel:
        inputs[..., 0] = 7.0
    return {
        "inputs": inputs,
        "gamma": generator.normal(size=shape[-1]),
        "beta": generator.normal(size=shape[-1]),
        "upstream": generator.normal(size=shape),
        "epsilon": epsilon,
        "negative_slope": negative_slope,
    }


NORM = {
    "one sample, one channel": draw_norm((1, 4, 4, 4, 1)),
    "odd sizes": draw_norm((3, 5, 3, 7, 4)),
    "odd sizes, LeakyReLU": draw_norm((3, 5, 3, 7, 4), negative_slope=0.01),
    "steep LeakyReLU": draw_norm((2, 3, 6, 5, 8), negative_slope=0.3),
    "two voxels": draw_norm((2, 1, 1, 2, 3), negative_slope=0.01),
    # The variance of this channel is 0, so only epsilon is in the denominator.
    "constant channel": draw_norm((2, 3, 3, 3, 2), constant_channel=True),
    "large epsilon": draw_norm((2, 3, 3, 3, 2), epsilon=0.5, negative_slope=0.01),
}

BETAS = (0.9, 0.999)
EPSILON = 1e-8  # PyTorch's, and the Trainer's
NUM_ROWS = 4


def own_counts(order):
    """Returns how often the row of each step was used before that step."""
    return np.array([np.sum(order[:i] == row) for i, row in enumerate(order)])


def global_counts(order):
    """Returns the number of steps before each step, as LazyAdam counts them."""
    return np.arange(len(order))


def deviation_correction(counts):
    return np.sqrt(1.0 - BETAS[1] ** (counts + 1.0))


def rate_correction(counts):
    """Returns the factors by which LazyAdam multiplies the learning rate."""
    return deviation_correction(counts) / (1.0 - BETAS[0] ** (counts + 1.0))


def draw_adam(order, counts, *, fixed_epsilon=False, weight_decay=0.0):
    order = np.array(order)
    generator = np.random.default_rng(len(order))
    # From far above epsilon to about as small as epsilon.
    scale = np.array([1.0, 1e-4, 1e-7, 1e-8, 1e-8])
    # LazyAdam adds epsilon to the root of the uncorrected second moment; PyTorch and
    # the Trainer, to that of the corrected one. An equal step needs a smaller epsilon
    # in LazyAdam.
    correction = 1.0 if fixed_epsilon else deviation_correction(own_counts(order))
    return {
        "rows": generator.normal(size=(NUM_ROWS, len(scale))),
        "order": order,
        "gradients": scale * generator.normal(size=(len(order), len(scale))),
        "learning_rate": 2.0**-7,  # exact in float32, as which Keras stores it
        "weight_decay": weight_decay,
        "betas": np.array(BETAS),
        "epsilons": EPSILON * correction * np.ones(len(order)),
        "counts": counts(order),
    }


ALWAYS_ONE = [1] * 20
ROUND_ROBIN = [0, 1, 2] * 8  # and never row 3
LATE = [0] * 300 + [1] * 20
ADAM = {
    "one row": draw_adam(ALWAYS_ONE, global_counts),
    "one row, decay": draw_adam(ALWAYS_ONE, global_counts, weight_decay=0.1),
    "one row, fixed epsilon": draw_adam(ALWAYS_ONE, global_counts, fixed_epsilon=True),
    "own counts": draw_adam(ROUND_ROBIN, own_counts),
    "own counts, decay": draw_adam(ROUND_ROBIN, own_counts, weight_decay=0.1),
    "global count": draw_adam(ROUND_ROBIN, global_counts),
    "global count, late": draw_adam(LATE, global_counts),
}


def draw_focal(differences, gamma, alpha):
    """Draws logits with these differences, each for one voxel of either label."""
    logits = np.zeros((2, len(differences), 2))
    logits[..., 1] = differences
    logits += np.random.default_rng(0).normal(scale=10.0, size=(2, len(differences), 1))
    labels = np.zeros((2, len(differences)), np.int64)
    labels[1] = 1
    return {
        "labels": labels.ravel(),
        "logits": logits.reshape(-1, 2),
        "gamma": gamma,
        "alpha": alpha,
    }


MODERATE = np.linspace(-6.0, 6.0, 21)
EXTREME = np.array([-700.0, -100.0, -40.0, -20.0, 20.0, 40.0, 100.0, 700.0])
FOCAL = {
    f"{name}, gamma {gamma}, alpha {alpha}": draw_focal(differences, gamma, alpha)
    for name, differences, gammas in (
        ("moderate", MODERATE, (0.0, 0.5, 1.0, 2.0, 5.0)),
        # Not 0.5, for which the oracle's gradient is NaN at voxels of probability 1.
        ("extreme", EXTREME, (0.0, 1.0, 2.0, 5.0)),
    )
    for gamma in gammas
    for alpha in (0.0, 0.25)
}

CASES = {"norm": NORM, "adam": ADAM, "focal": FOCAL}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Returns the oracle's results for a case: `oracle(kind, case)[result]`."""
    folder = tmp_path_factory.mktemp("oracle")
    inputs = {
        f"{kind}/{case}/{name}": value
        for kind, cases in CASES.items()
        for case, arguments in cases.items()
        for name, value in arguments.items()
    }
    np.savez(folder / "inputs.npz", **inputs)
    done = subprocess.run(
        # -I ignores PYTHONPATH, which could lead to another TensorFlow.
        [PYTHON, "-I", HERE / "tfa_values.py", "inputs.npz", "outputs.npz"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        outputs = dict(archive)

    def of_case(kind, case):
        prefix = f"{kind}/{case}/"
        return {
            name.removeprefix(prefix): array
            for name, array in outputs.items()
            if name.startswith(prefix)
        }

    return of_case


@pytest.mark.parametrize("case", NORM)
class TestInstanceNorm:
    def compare(self, case, oracle, normalize, gamma, beta):
        arguments = NORM[case]
        inputs = tf.constant(arguments["inputs"])
        with tf.GradientTape() as tape:
            tape.watch([inputs, gamma, beta])
            outputs = normalize(inputs)
        gradients = tape.gradient(
            outputs, [inputs, gamma, beta], output_gradients=arguments["upstream"]
        )
        expected = oracle("norm", case)
        names = ("inputs_gradient", "gamma_gradient", "beta_gradient")
        found = {"outputs": outputs, **dict(zip(names, gradients, strict=True))}
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert array.dtype == expected[name].dtype == np.float64
            np.testing.assert_allclose(
                array, expected[name], rtol=0, atol=1e-10, err_msg=name
            )

    def options(self, case):
        slope = NORM[case]["negative_slope"]
        return {
            "epsilon": NORM[case]["epsilon"],
            "negative_slope": None if slope == 1.0 else slope,
        }

    def test_op(self, case, oracle):
        gamma, beta = (tf.constant(NORM[case][name]) for name in ("gamma", "beta"))
        normalize = functools.partial(
            ops.instance_norm, scale=gamma, offset=beta, **self.options(case)
        )
        self.compare(case, oracle, normalize, gamma, beta)

    def test_layer(self, case, oracle):
        channels = len(NORM[case]["gamma"])
        layer = DomainNorm([channels] * 2, **self.options(case), dtype="float64")
        layer.build()
        gamma, beta = layer.domain_variables(1)
        gamma.assign(NORM[case]["gamma"])
        beta.assign(NORM[case]["beta"])
        normalize = functools.partial(layer, domain=1)
        self.compare(case, oracle, normalize, gamma.value, beta.value)


class RowNetwork(keras.Model):
    """A row of numbers per domain; the gradient of a row is the input image."""

    def __init__(self, rows):
        super().__init__(dtype="float64")
        self.num_domains = len(rows)
        self.num_modalities = [len(row) for row in rows]
        self.num_classes = [2] * len(rows)
        self.rows = [
            self.add_weight(shape=row.shape, name=f"row_{index}")
            for index, row in enumerate(rows)
        ]
        for variable, row in zip(self.rows, rows, strict=True):
            variable.assign(row)
        self.trunk = self.add_weight(shape=(1,), name="trunk")
        self.built = True

    def call(self, inputs, *, domain, training=None):
        @tf.custom_gradient
        def logits(row, trunk):
            def gradient(upstream):
                return tf.reshape(inputs, row.shape), tf.zeros_like(trunk)

            return tf.zeros([1, 1, 1, 1, 2], tf.float64), gradient

        return logits(*(v.value for v in (self.rows[domain], self.trunk)))

    def domain_variables(self, domain):
        return [self.rows[domain]]

    @property
    def shared_variables(self):
        return [self.trunk]


@functools.cache
def train(case):
    """Takes the steps of a case like `tfa_values.adam`, but with the Trainer."""
    arguments = ADAM[case]
    trainer = Trainer(
        RowNetwork(arguments["rows"]),
        learning_rate=arguments["learning_rate"],
        weight_decay=arguments["weight_decay"],
    )
    history = {"rows": [], "means": [], "squares": []}

    def record():
        optimizers = [trainer.domain_optimizers[i] for i in range(NUM_ROWS)]
        history["rows"].append([v.numpy() for v in trainer.network.rows])
        history["means"].append([o._momentums[0].numpy() for o in optimizers])
        history["squares"].append([o._velocities[0].numpy() for o in optimizers])

    record()
    labels = tf.zeros([1, 1, 1, 1], tf.uint8)
    for domain, gradient in zip(
        arguments["order"], arguments["gradients"], strict=True
    ):
        image = tf.reshape(tf.constant(gradient), [1, 1, 1, 1, -1])
        trainer.step(domain, {"image": image, "labels": labels})
        record()
    return {name: np.array(arrays) for name, arrays in history.items()}


def used_changes(case, rows):
    """Returns the change of the used row in each step, (S, C)."""
    order = ADAM[case]["order"]
    return np.diff(rows, axis=0)[np.arange(len(order)), order]


class TestLazyAdam:
    """LazyAdam's rows correspond to our domains, each with its own optimizer.

    The cases account for two intended differences: to which term epsilon is added, and
    that LazyAdam corrects the bias of every row by one global count.
    """

    @pytest.mark.parametrize("case", ADAM)
    def test_a_step_changes_only_the_row_that_it_uses(self, case, oracle):
        order = ADAM[case]["order"]
        unused = np.arange(NUM_ROWS) != order[:, np.newaxis]
        for history in (train(case), oracle("adam", case)):
            for name, array in history.items():
                changed = array[1:] != array[:-1]
                assert not changed[unused].any(), name
                assert changed[~unused].all(), name

    @pytest.mark.parametrize(
        "case", ["one row", "one row, decay", "own counts", "own counts, decay"]
    )
    def test_rows_and_moments(self, case, oracle):
        found, expected = train(case), oracle("adam", case)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert array.dtype == expected[name].dtype == np.float64
            # The gradients of the columns differ much in size, and so do the moments.
            scale = np.max(np.abs(expected[name]), axis=(0, 1))
            np.testing.assert_allclose(
                array / scale, expected[name] / scale, rtol=0, atol=1e-12, err_msg=name
            )

    def test_epsilon_is_added_to_the_corrected_moment(self, oracle):
        case = "one row, fixed epsilon"
        expected = oracle("adam", case)
        order = ADAM[case]["order"]
        deviations = np.sqrt(expected["squares"][1:])[:, order[0]]
        correction = deviation_correction(own_counts(order))[:, np.newaxis]
        ratio = (deviations + EPSILON) / (deviations + EPSILON * correction)
        assert ratio.max() > 5.0
        np.testing.assert_allclose(
            used_changes(case, train(case)["rows"]),
            used_changes(case, expected["rows"]) * ratio,
            rtol=0,
            atol=1e-12,
        )

    @pytest.mark.parametrize("case", ["global count", "global count, late"])
    def test_every_domain_has_its_own_step_count(self, case, oracle):
        # A global count changes only the length of the steps.
        order = ADAM[case]["order"]
        own = rate_correction(own_counts(order))
        together = rate_correction(global_counts(order))
        ratio = (own / together)[:, np.newaxis]
        np.testing.assert_allclose(
            used_changes(case, train(case)["rows"]),
            used_changes(case, oracle("adam", case)["rows"]) * ratio,
            rtol=0,
            atol=1e-12,
        )

    def test_a_global_count_makes_the_first_step_of_a_late_domain_too_long(
        self, oracle
    ):
        # This is why every domain has its own optimizer: Adam's first step is as long
        # as the learning rate. With a global count, the later a domain is added, the
        # longer its first step: up to (1 - 0.9) / sqrt(1 - 0.999), 3.2 times as long.
        case, first = "global count, late", LATE.index(1)
        changes = [
            np.abs(used_changes(case, history["rows"])[first, 0])
            / ADAM[case]["learning_rate"]
            for history in (train(case), oracle("adam", case))
        ]
        np.testing.assert_allclose(changes[0], 1.0, rtol=1e-6)
        assert changes[1] > 1.6


def focal_gradient(labels, logits, gamma):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.focal(labels, logits, gamma=gamma)
    return loss, tape.gradient(loss, logits)


@pytest.mark.parametrize("case", FOCAL)
class TestFocal:
    """Our loss is a mean over voxels without α; the oracle's is per voxel, with α."""

    def weights(self, case):
        """Returns the factor of each voxel; the oracle ignores an α of 0."""
        labels, alpha = FOCAL[case]["labels"], FOCAL[case]["alpha"]
        if alpha == 0.0:
            return np.ones(len(labels))
        return np.where(labels == 1, alpha, 1.0 - alpha)

    # The oracle subtracts p from 1, which is exact only to 16 decimal places.
    tolerance = {"rtol": 1e-10, "atol": 1e-14}

    def test_every_voxel(self, case, oracle):
        labels, logits, gamma, _ = FOCAL[case].values()
        expected = oracle("focal", case)
        for index, weight in enumerate(self.weights(case)):
            one = slice(index, index + 1)
            loss, gradient = focal_gradient(labels[one], logits[one], gamma)
            np.testing.assert_allclose(
                weight * loss, expected["values"][index], **self.tolerance
            )
            np.testing.assert_allclose(
                weight * gradient[0],
                expected["logits_gradient"][index],
                **self.tolerance,
            )

    def test_mean_over_voxels(self, case, oracle):
        arguments, expected = FOCAL[case], oracle("focal", case)
        weights = self.weights(case)
        labels = arguments["labels"].reshape(2, -1, 1, 1)
        logits = arguments["logits"].reshape(*labels.shape, 2)
        loss, gradient = focal_gradient(labels, logits, arguments["gamma"])
        np.testing.assert_allclose(
            loss, np.mean(expected["values"] / weights), **self.tolerance
        )
        np.testing.assert_allclose(
            gradient.numpy().reshape(-1, 2) * len(weights),
            expected["logits_gradient"] / weights[:, np.newaxis],
            **self.tolerance,
        )
