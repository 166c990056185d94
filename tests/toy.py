"""A network that is quick to trace, and two domains with a few small cases.

For tests of what surrounds the network: trainer, checkpoints, loop, predictor.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
from unittest import mock

import keras
import nibabel as nib
import numpy as np
import tensorflow as tf

from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.training.step import Trainer

ONE = Domain(
    name="Task91_One",
    raw_dir="unset",
    modalities=("CT",),
    labels=(Label("background", (0,)), Label("organ", (1,), keep_components=1)),
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(10, 12, 12),
    patch_size=(8, 8, 8),
    pools=(1, 1, 1),
    batch_size=2,
    train=("one_0", "one_1", "one_2"),
    validation=("one_3", "one_4"),
    test=("one_5",),
)
TWO = Domain(
    name="Task92_Two",
    raw_dir="unset",
    modalities=("T2", "ADC"),
    # With merged values, and not sorted by value.
    labels=(Label("background", (0,)), Label("rim", (4, 7)), Label("core", (2,))),
    spacing_mm=(2.0, 1.0, 1.0),
    median_shape=(6, 12, 12),
    patch_size=(4, 8, 8),
    pools=(1, 1, 1),
    batch_size=2,
    mirror_axes=(),
    train=("two_0", "two_1"),
    test=("two_2",),
)
PLAN = Plan((ONE, TWO))


class ToyNetwork(keras.Model):
    """A matrix per domain, then one that is shared, then another one per domain."""

    gradient_checkpointing = "none"

    def __init__(self, num_modalities, num_classes, *, width=4, **kwargs):
        super().__init__(**kwargs)
        self.num_modalities = tuple(num_modalities)
        self.num_classes = tuple(num_classes)
        self.num_domains = len(self.num_modalities)
        self.width = width

    def build(self, input_shape=None):
        self.stems = [
            self.add_weight(shape=(size, self.width), name=f"stem_{i}")
            for i, size in enumerate(self.num_modalities)
        ]
        self.trunk = self.add_weight(shape=(self.width, self.width), name="trunk")
        self.heads = [
            self.add_weight(shape=(self.width, size), name=f"head_{i}")
            for i, size in enumerate(self.num_classes)
        ]
        # tf.train.Checkpoint does not find variables that Keras keeps in a list.
        for variable in (*self.stems, *self.heads):
            setattr(self, variable.name, variable)
        self.built = True

    def call(self, inputs, *, domain, training=None):
        hidden = tf.tensordot(inputs, self.stems[domain].value, 1)
        hidden = tf.tensordot(tf.nn.leaky_relu(hidden), self.trunk.value, 1)
        return tf.tensordot(tf.nn.leaky_relu(hidden), self.heads[domain].value, 1)

    def domain_variables(self, domain):
        return [self.stems[domain], self.heads[domain]]

    @property
    def shared_variables(self):
        return [self.trunk]

    def variables_by_path(self):
        lists = {"stem": self.stems, "head": self.heads}
        own = {
            f"{name}_{i}": variable
            for name, variables in lists.items()
            for i, variable in enumerate(variables)
        }
        return {**own, "trunk": self.trunk}


def build_toy_network(spec, *, gradient_checkpointing="none", **kwargs):
    """Replaces `models.build.build_network`; the toy network has no blocks."""
    assert gradient_checkpointing == "none"
    network = ToyNetwork(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        width=spec.base_channels,
        **kwargs,
    )
    network.build()
    return network


def make_model(domains=(ONE, TWO), adapter="separable", seed=0, **settings):
    """A small real model; noise on every variable stands for training."""
    spec = ModelSpec(
        plan=Plan(tuple(domains)),
        **{"pools": (1, 0, 1), "base_channels": 2, "adapter": adapter, **settings},
    )
    keras.utils.set_random_seed(seed)
    network = build_network(spec)
    generator = np.random.default_rng(seed)
    for variable in network.variables:
        variable.assign(variable + 0.1 * generator.standard_normal(variable.shape))
    return spec, network


@contextlib.contextmanager
def set_to_0(variables):
    """Sets variables to 0 within the context."""
    values = [(variable, variable.numpy()) for variable in variables]
    for variable, value in values:
        variable.assign(np.zeros_like(value))
    try:
        yield
    finally:
        for variable, value in values:
            variable.assign(value)


def make_trainer(seed=0, plan=PLAN, dtype="float32", **options):
    """A trainer of the toy network, its variables drawn from the seed."""
    keras.utils.set_random_seed(seed)
    spec = ModelSpec(plan=plan, pools=(1, 1, 1), base_channels=4)
    network = build_toy_network(spec, dtype=dtype)
    options = {"learning_rate": 0.01, "weight_decay": 0.1, **options}
    return spec, Trainer(network, **options)


@contextlib.contextmanager
def eager_steps():
    """Runs steps eagerly: tracing one takes longer than the few steps of most tests."""
    original = Trainer.step

    @functools.wraps(original)
    def step(self, domain, batch):
        tf.config.run_functions_eagerly(True)
        try:
            return original(self, domain, batch)
        finally:
            tf.config.run_functions_eagerly(False)

    with mock.patch.object(Trainer, "step", step):
        yield


def draw_batch(domain, seed=0, size=(8, 8, 8), dtype="float32"):
    """A batch of noise in the format of the input pipeline."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(2, *size, domain.num_modalities))
    labels = generator.integers(0, domain.num_classes, (2, *size))
    return {
        "image": tf.constant(images, dtype),
        "labels": tf.constant(labels, tf.uint8),
        "case": tf.constant(["a", "b"]),
    }


def values_of(variables):
    """Copies of the values, for bitwise comparison."""
    return [variable.numpy().copy() for variable in variables]


def assert_identical(first, second):
    """Asserts that two lists of arrays are bit-identical."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def write_scans(raw_dir: pathlib.Path) -> Plan:
    """Writes the cases of both domains in MSD layout; returns their plan.

    Organs are brighter than their surroundings, so that a few steps learn them.
    """
    domains = []
    for domain in PLAN.domains:
        folder = raw_dir / domain.name
        rows = []
        for index, case in enumerate((*domain.train, *domain.validation, *domain.test)):
            image, labels = _draw_case(domain, index)
            for kind, array in (("imagesTr", image), ("labelsTr", labels)):
                path = folder / kind / f"{case}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.eye(4)), path)
            rows.append(
                {
                    "image": f"./imagesTr/{case}.nii.gz",
                    "label": f"./labelsTr/{case}.nii.gz",
                }
            )
        values = sorted(value for label in domain.labels for value in label.values)
        content = {
            "modality": {str(i): name for i, name in enumerate(domain.modalities)},
            "labels": {str(value): f"value {value}" for value in values},
            "training": rows,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        domains.append(dataclasses.replace(domain, raw_dir=str(folder)))
    return Plan(tuple(domains))


def _draw_case(domain, index):
    """Image and raw labels in the order on disk: x, y, z (and modality)."""
    generator = np.random.default_rng(index)
    shape = (12 + index, 12, 10)
    labels = np.zeros(shape, np.uint8)
    labels[3:9, 3:9, 2:8] = domain.labels[1].values[-1]
    if domain.num_classes > 2:
        labels[5:8, 5:8, 3:7] = domain.labels[2].values[0]
    image = 100 + 5 * generator.normal(size=(*shape, domain.num_modalities))
    image += 60.0 * (labels > 0)[..., None] + 60.0 * (labels == 2)[..., None]
    return image.squeeze(-1) if domain.num_modalities == 1 else image, labels
