"""Patches without content send no gradient to the network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.losses import segmentation_loss
from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.training.empty_patches import stop_gradient_of_empty
from u2net_tf.training.step import Trainer

pytestmark = pytest.mark.usefixtures("plain_implementation_in_module", "eager_steps")
PRECISIONS = ("mixed_float16", "mixed_bfloat16", "float32")
# The paper's network has twice as many norms, and its tests take twice as long.
NETWORKS = [
    pytest.param(
        adapter,
        dtype,
        marks=[] if (adapter, dtype) == ("none", PRECISIONS[0]) else pytest.mark.slow,
    )
    for adapter in ("none", "separable")
    for dtype in PRECISIONS
]


def make_trainer(
    domain=toy.ONE, *, dtype, adapter="none", pools=(1, 1, 1), weight_decay=0.0
):
    """A new network, as it is before its first step: biases and β are 0."""
    keras.utils.set_random_seed(0)
    spec = ModelSpec(
        plan=Plan((domain,)), pools=pools, base_channels=2, adapter=adapter
    )
    network = build_network(spec, dtype=dtype)
    return Trainer(network, learning_rate=3e-4, weight_decay=weight_decay)


def draw_images(domain=toy.ONE, seed=0, size=(8, 8, 8)):
    batch = toy.draw_batch(domain, seed, size=size)
    return batch["image"].numpy(), batch["labels"].numpy()


def differentiate(trainer, images, labels):
    """The gradients of a step, in float64, by the path of their variable."""
    network = trainer.network
    own = network.domain_variables(0)
    _, gradients, is_finite = trainer._differentiate(
        0, [v.value for v in own], tf.constant(images), tf.constant(labels)
    )
    assert bool(is_finite)
    variables = [*network.shared_variables, *own]
    return {
        variable.path: np.float64(gradient)
        for variable, gradient in zip(variables, gradients, strict=True)
    }


def length(gradients):
    return np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))


@pytest.mark.parametrize("traced", [False, True])
def test_only_patches_of_zeros_have_no_gradient(traced):
    images = np.zeros((5, 2, 2, 3, 2), np.float32)
    images[1] = -1.7
    # One voxel of one modality.
    images[2, 1, 0, 2, 1] = 1e-6
    images[3] = -0.0
    images[4, 0, 0, 0, 0] = np.nan
    logits = np.random.default_rng(0).normal(size=(5, 2, 2, 3, 4))

    def differentiated(images, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            outputs = stop_gradient_of_empty(images, logits)
            total = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(total, logits)

    if traced:
        unknown = [tf.TensorSpec([None] * 5, dtype) for dtype in ("float32", "float64")]
        differentiated = tf.function(
            differentiated, autograph=False, input_signature=unknown
        )
    outputs, gradient = differentiated(tf.constant(images), tf.constant(logits))
    np.testing.assert_array_equal(outputs, logits)
    expected = 2 * logits * np.reshape([0, 1, 1, 0, 1], (5, 1, 1, 1, 1))
    np.testing.assert_array_equal(gradient, expected)


def test_other_patches_have_the_gradient_with_constant_empty_logits():
    trainer = make_trainer(dtype="float64")
    images, labels = draw_images()
    images[1] = 0
    network = trainer.network
    own = network.trainable_variables
    with tf.GradientTape() as tape:
        # A new network's logits for an empty patch are 0.
        logits = network(tf.constant(images[:1]), domain=0)
        logits = tf.concat([logits, tf.zeros_like(logits)], axis=0)
        loss = segmentation_loss(labels, logits)
    expected = tape.gradient(loss, [variable.value for variable in own])
    found = differentiate(trainer, images, labels)
    scale = length(found)
    for variable, gradient in zip(own, expected, strict=True):
        np.testing.assert_allclose(
            found[variable.path], gradient, rtol=0, atol=1e-10 * scale
        )


def empty_patch(images, labels):
    images[1] = labels[1] = 0


def labelled_empty_patch(images, labels):
    images[1] = 0


def constant_patch(images, labels):
    images[1], labels[1] = -1.7, 0


def empty_modality(images, labels):
    images[..., 0] = 0


def constant_modality(images, labels):
    images[..., 1] = 3.5


def single_voxel(images, labels):
    images[1] = 0
    images[1, 4, 4, 4] = 1


def background(images, labels):
    labels[:] = 0


@pytest.fixture(scope="module")
def typical_length():
    """The length of the first gradient of patches of noise, by network."""
    lengths = {}

    def measure(trainer):
        network = trainer.network
        key = network.adapter, network.dtype_policy.name
        if key not in lengths:
            lengths[key] = length(differentiate(trainer, *draw_images(toy.TWO)))
        return lengths[key]

    return measure


@pytest.mark.parametrize(("adapter", "dtype"), NETWORKS)
@pytest.mark.parametrize(
    "change",
    [
        empty_patch,
        constant_patch,
        single_voxel,
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                labelled_empty_patch,
                empty_modality,
                constant_modality,
                background,
            )
        ),
    ],
)
def test_first_gradient_has_a_typical_length(change, adapter, dtype, typical_length):
    trainer = make_trainer(toy.TWO, dtype=dtype, adapter=adapter)
    expected = typical_length(trainer)
    images, labels = draw_images(toy.TWO)
    change(images, labels)
    found = length(differentiate(trainer, images, labels))
    assert expected / 10 < found < 10 * expected


@pytest.mark.parametrize(("adapter", "dtype"), NETWORKS)
def test_an_empty_batch_changes_nothing(adapter, dtype):
    trainer = make_trainer(dtype=dtype, adapter=adapter)
    images, labels = (np.zeros_like(array) for array in draw_images())
    before = toy.values_of(trainer.network.variables)
    loss = trainer.step(0, {"image": tf.constant(images), "labels": labels})
    assert np.isfinite(loss)
    toy.assert_identical(toy.values_of(trainer.network.variables), before)
    assert trainer.skipped_steps() == 0


def take_steps(trainer, num_steps, change=None):
    """Trains to find bright voxels; returns the losses."""
    losses = []
    for number in range(num_steps):
        images, _ = draw_images(seed=number)
        labels = (images[..., 0] > 1).astype(np.uint8)
        if change is not None:
            change(number, images, labels)
        losses.append(trainer.step(0, {"image": tf.constant(images), "labels": labels}))
    assert np.isfinite(losses).all()
    return losses


class TestDeepestMapsOfOneVoxel:
    """They are constant in each patch, and so are the maps up-sampled from them."""

    def test_variables_after_them_are_trained(self):
        trainer = make_trainer(dtype="float32", pools=(3, 3, 3))
        gradients = differentiate(trainer, *draw_images())
        assert 0 < length(gradients) < 1e3
        (last,) = (
            gradient
            for path, gradient in gradients.items()
            if path.endswith("encoder_3/unit_2/norm/beta_0")
        )
        assert np.all(last != 0)

    @pytest.mark.slow
    def test_float16_skips_only_the_first_steps(self):
        trainer = make_trainer(
            dtype="mixed_float16", adapter="separable", pools=(3, 3, 3)
        )
        take_steps(trainer, 40)
        skipped = trainer.skipped_steps()
        assert 0 < skipped < 12
        take_steps(trainer, 20)
        assert trainer.skipped_steps() == skipped


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, -1.7])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_trains_if_every_tenth_patch_is_constant(value, dtype):
    def change(number, images, labels):
        if number % 5 == 0:
            images[0], labels[0] = value, 0

    trainer = make_trainer(dtype=dtype, adapter="separable", weight_decay=1e-5)
    losses = take_steps(trainer, 40, change)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert trainer.skipped_steps() == 0
    if trainer.loss_scale is not None:
        assert float(trainer.loss_scale.value) == 2.0**15
