"""Every operation of a training step and of prediction has a kernel for GPUs.

No GPU is needed: TensorFlow lists the kernels that it contains. An operation without
one would silently run on the CPU, with copies of its inputs and outputs.
"""

import contextlib
import dataclasses

import pytest
import tensorflow as tf
import toy
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

from u2net_tf.config.training import LossConfig
from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.training.domain_losses import domain_losses
from u2net_tf.training.gate_loss import gate_loss
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.step import Trainer

# Without a kernel of their own: they call functions or do nothing.
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "NoOp"}
PLACEHOLDERS = {"Placeholder", "Const"}
VARIANTS = [
    {"adapter": "separable"},
    {"adapter": "series"},
    {"adapter": "parallel"},
    {"adapter": "none"},
    {"architecture": "unet_sharp", "depth": 2, "gates": "both", "pools": (2, 2, 2)},
]
# Of the operations that XLA compiles on their own, one network has all.
STEPS = [
    (variant, implementation, device, precision)
    for precision in ("float32", "mixed_bfloat16", "mixed_float16")
    for variant in VARIANTS
    for implementation, device in (
        (None, "GPU"),
        ("xla_module", "XLA_GPU_JIT"),
        ("triton", "XLA_GPU_JIT"),
    )
]
STEPS.append((VARIANTS[0], None, "XLA_GPU_JIT", "float32"))


def is_for(kernel, device, node):
    """Returns whether a kernel runs a node on a device."""
    if kernel.device_type not in (device, "DEFAULT"):
        return False
    for constraint in kernel.constraint:
        attribute = node.attr[constraint.name]
        kinds = [attribute.type] if attribute.type else attribute.list.type
        if set(kinds) - set(constraint.allowed_values.list.type):
            return False
    return True


def without_kernel(function, device):
    """Returns (operation, types) of the nodes of a function that lack a kernel."""
    definition = function.graph.as_graph_def()
    bodies = [definition.node, *(each.node_def for each in definition.library.function)]
    nodes = [node for body in bodies for node in body]
    assert len(nodes) > 20
    found = set()
    for node in nodes:
        if node.op in CALLS | PLACEHOLDERS:
            continue
        registered = kernels.get_registered_kernels_for_op(node.op).kernel
        if not any(is_for(kernel, device, node) for kernel in registered):
            types = {types_pb2.DataType.Name(a.type) for a in node.attr.values()}
            found.add((node.op, *sorted(types - {"DT_INVALID"})))
    return found


@pytest.fixture(autouse=True)
def with_cuda():
    if not tf.test.is_built_with_cuda():
        pytest.skip("this build of TensorFlow contains no kernels for GPUs")


def test_an_operation_without_a_kernel_is_found():
    @tf.function
    def function(values):
        for _ in range(20):
            values = values + 1
        return tf.strings.as_string(values), tf.math.bincount(tf.cast(values, "int64"))

    function = function.get_concrete_function(tf.ones(3))
    assert ("AsString", "DT_FLOAT") in without_kernel(function, "GPU")


@pytest.mark.parametrize(
    ("variant", "implementation", "device", "precision"),
    [
        pytest.param(*case, marks=[] if number == 0 else pytest.mark.slow, id=str(case))
        for number, case in enumerate(STEPS)
    ],
)
def test_a_step(variant, implementation, device, precision):
    """By single operations, some of which XLA compiles, and as one module."""
    region = Region("all", ("organ",))
    one = dataclasses.replace(toy.ONE, regions=(region,), ignore_label=9)
    spec = ModelSpec(
        plan=Plan((one, toy.TWO)),
        **{"pools": (1, 0, 1), "base_channels": 2, **variant},
    )
    loss = LossConfig(region_loss_weight=1.0)
    gates = gate_loss(loss, spec)
    trainer = Trainer(
        build_network(spec, dtype=precision),
        learning_rate=0.1,
        weight_decay=0.1,
        head_weights=head_weights(loss, spec),
        gate_loss=gates,
        domain_losses=domain_losses(loss, spec, spec.plan.domains),
    )
    batch = toy.draw_batch(spec.plan.domains[0])
    step = trainer.step_function(0, jit_compile=False, implementation=implementation)
    keys = gates.dropout_keys(0, [0]).values()
    function = step.get_concrete_function(
        trainer.state(0), batch["image"], batch["labels"], *keys
    )
    assert without_kernel(function, device) == set()


@pytest.mark.parametrize(
    "implementation", [None, pytest.param("plain", marks=pytest.mark.slow)]
)
def test_prediction(implementation):
    """By this package, and of a SavedModel."""
    spec, network = toy.make_model()
    domain = spec.plan.domains[0]

    @tf.function
    def predict(windows):
        return network(windows, domain=0, training=False)

    with contextlib.ExitStack() as stack:
        if implementation:
            stack.enter_context(ops.use_implementation(implementation))
        function = predict.get_concrete_function(
            tf.TensorSpec([None, *domain.patch_size, domain.num_modalities])
        )
    assert without_kernel(function, "GPU") == set()
