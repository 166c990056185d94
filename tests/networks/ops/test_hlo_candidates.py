"""Candidates for operations on a GPU compute what the present ones compute."""

import functools
import re

import pytest
import tensorflow as tf
from arrays import (
    assert_all_close,
    differentiate,
    draw,
    every_execution,
    types_of_gradient,
)

from tools.bench.hlo import emit
from tools.bench.hlo.candidates import CANDIDATES, use_candidate
from u2net_tf.networks import ops

MODULE = ops.IMPLEMENTATIONS["xla_module"]


def test_the_flag_names_all_candidates():
    assert tuple(CANDIDATES) == emit.CANDIDATES


FORWARD = {"depthwise_conv3d", "depthwise_input_gradient"}
REPLACED = {
    "padded": FORWARD,
    "sums": {"depthwise_kernel_gradient"},
    "sub_voxel": {"conv3d"},
    "padded_sums": FORWARD | {"depthwise_kernel_gradient"},
    "padded_sums_sub_voxel": FORWARD | {"depthwise_kernel_gradient", "conv3d"},
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_replace_the_named_operations_only(name):
    found, present = (vars(each) for each in (CANDIDATES[name], MODULE))
    changed = {key for key in present if found[key] is not present[key]}
    assert changed == REPLACED[name]


def test_are_known_within_the_context_only():
    with use_candidate("sums"):
        assert ops.current_implementation() == "sums"
    assert ops.current_implementation() == "xla"
    assert set(CANDIDATES).isdisjoint(ops.IMPLEMENTATIONS)


def assert_same(name, function, tensors, upstream, execution):
    with use_candidate(name):
        outputs, gradients = differentiate(function, tensors, upstream, execution)
    with ops.use_implementation("plain"):
        expected_outputs, expected = differentiate(function, tensors, upstream)
    assert_all_close([outputs, *gradients], [expected_outputs, *expected], atol=1e-11)


@pytest.mark.parametrize("name", ["padded", "sums"])
@pytest.mark.parametrize(
    ("size", "kernel_size", "upsample", "execution"),
    every_execution(
        [
            ((3, 4, 5), (3, 3, 3), (1, 1, 1)),
            ((1, 2, 3), (5, 1, 3), (1, 1, 1)),
            ((2, 3, 2), (3, 3, 3), (1, 2, 2)),
        ]
    ),
)
def test_depthwise(name, size, kernel_size, upsample, execution):
    tensors = draw((2, *size, 3)), draw((*kernel_size, 3), 1), draw((3,), 2)
    upstream = draw((2, *(s * f for s, f in zip(size, upsample, strict=True)), 3), 3)

    def convolve(inputs, kernel, bias):
        kernel = tf.ensure_shape(kernel, tensors[1].shape)
        return ops.depthwise_conv3d(inputs, kernel, bias, upsample=upsample)

    assert_same(name, convolve, tensors, upstream, execution)


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "execution"),
    every_execution(
        [
            ((4, 6, 8), (3, 3, 3), (2, 2, 2)),
            ((3, 4, 6), (3, 3, 3), (1, 2, 2)),
            ((2, 6, 3), (5, 3, 2), (2, 3, 1)),
            ((2, 4, 6), (1, 4, 5), (2, 2, 3)),
            # Not divisible, and without strides.
            ((5, 4, 3), (3, 3, 3), (2, 2, 2)),
            ((3, 2, 3), (3, 3, 3), (1, 1, 1)),
        ]
    ),
)
def test_strided(size, kernel_size, strides, execution):
    tensors = draw((2, *size, 3)), draw((*kernel_size, 3, 4), 1)
    upstream = draw((2, *(-(-s // d) for s, d in zip(size, strides, strict=True)), 4))

    def convolve(inputs, kernel):
        kernel = tf.ensure_shape(kernel, tensors[1].shape)
        return ops.conv3d(inputs, kernel, strides=strides)

    assert_same("sub_voxel", convolve, tensors, upstream, execution)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernel_gradient_sums_in_float32(dtype):
    """Sums over many voxels do not stop growing."""
    inputs, kernel = tf.ones((1, 16, 16, 16, 2), dtype), tf.ones((3, 3, 3, 2), dtype)
    with use_candidate("sums"):
        _, (_, gradient) = differentiate(
            ops.depthwise_conv3d, [inputs, kernel], tf.ones_like(inputs)
        )
    assert gradient.dtype == dtype
    assert float(gradient[1, 1, 1, 0]) == 16**3


def test_padding_precedes_the_taps():
    """A barrier keeps XLA from padding in each tap."""
    inputs, kernel = draw((1, 3, 3, 3, 2)), draw((3, 3, 3, 2))

    @tf.function(jit_compile=True, autograph=False)
    def run(inputs, kernel):
        return ops.depthwise_conv3d(inputs, kernel)

    with use_candidate("padded"):
        text = run.experimental_get_compiler_ir(inputs, kernel)(stage="hlo")
    assert re.search(r"= f64\[1,5,5,5,2\]\S* opt-barrier\(", text)


@pytest.mark.parametrize(
    ("name", "operation", "absent"),
    [
        ("sums", "depthwise", "DepthwiseConv2dNativeBackpropFilter"),
        ("sub_voxel", "strided", "Conv3DBackpropInputV2"),
    ],
)
def test_does_without_the_operation_of_cudnn(name, operation, absent):
    function, kernel = {
        "depthwise": (ops.depthwise_conv3d, (3, 3, 3, 2)),
        "strided": (functools.partial(ops.conv3d, strides=(2, 2, 2)), (3, 3, 3, 2, 4)),
    }[operation]

    tensors = tf.zeros((1, 4, 4, 4, 2)), tf.zeros(kernel)
    with use_candidate(name):
        assert absent not in types_of_gradient(function, tensors)
    with ops.use_implementation("xla_module"):
        assert absent in types_of_gradient(function, tensors)
