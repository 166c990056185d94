"""The implementation "export"; exported models are tested in `tests/exporting`."""

import numpy as np
import pytest
import tensorflow as tf
from arrays import draw

from u2net_tf.networks import ops


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4), (None, None, None)])
def test_upsampling_equals_the_plain_implementation(factors, align_corners, size):
    maps = draw((2, 2, 3, 4, 3), dtype=np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, *size, 3])], autograph=False)
    def upsample(maps):
        options = {"implementation": "export"}
        return (
            ops.upsample_nearest(maps, factors, **options),
            ops.upsample_linear(maps, factors, align_corners=align_corners, **options),
        )

    nearest, linear = upsample(maps)
    np.testing.assert_array_equal(
        nearest, ops.upsample_nearest(maps, factors, implementation="plain")
    )
    expected = ops.upsample_linear(maps, factors, align_corners=align_corners)
    np.testing.assert_allclose(linear, expected, rtol=0, atol=1e-6)


def test_pools():
    maps = draw((2, 4, 2, 6, 3), dtype=np.float32)
    found = ops.max_pool(maps, (2, 1, 3), implementation="export")
    np.testing.assert_array_equal(found, ops.max_pool(maps, (2, 1, 3)))


def test_a_depthwise_convolution_is_a_grouped_one():
    """TensorFlow's CPU cannot run it."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 4, 3])], autograph=False)
    def convolve(maps):
        kernel, bias = tf.ones((3, 3, 3, 3)), tf.ones(3)
        return ops.depthwise_conv3d(maps, kernel, bias, implementation="export")

    graph = convolve.get_concrete_function().graph
    (conv,) = [one for one in graph.get_operations() if one.type == "Conv3D"]
    assert conv.inputs[1].shape == (3, 3, 3, 1, 3)
    assert conv.outputs[0].shape.as_list() == [None, 4, 4, 4, 3]


def test_groups_are_concatenated():
    groups = [draw((1, 2, 2, 2, size)) for size in (1, 2)]
    kernel = draw((1, 1, 1, 3, 2))
    found = ops.conv3d(groups, kernel, implementation="export")
    np.testing.assert_allclose(
        found, ops.conv3d(groups, kernel, implementation="plain"), atol=1e-12
    )


def test_a_norm_has_no_gradient():
    maps = tf.constant(draw((1, 2, 2, 2, 3)))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        norm = ops.instance_norm(
            maps,
            tf.ones(3, tf.float64),
            tf.zeros(3, tf.float64),
            implementation="export",
        )
    with pytest.raises(NotImplementedError, match="'export' has no gradients"):
        tape.gradient(norm, maps)
