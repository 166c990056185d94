import functools

import numpy as np
import pytest
import tensorflow as tf
from arrays import assert_all_close, differentiate, draw, every_execution

from u2net_tf.networks import ops


def naive(inputs, kernel, *, factors, align_corners=False):
    """Up-samples, concatenates and convolves."""
    maps = [
        ops.upsample_linear(tensor, each, align_corners=align_corners)
        for tensor, each in zip(inputs, factors, strict=True)
    ]
    return tf.nn.conv3d(tf.concat(maps, axis=-1), kernel, [1] * 5, "SAME")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_a_pointwise_convolution_commutes_with_linear_upsampling(
    factors, align_corners
):
    image, kernel = draw((2, 3, 2, 3, 5)), draw((1, 1, 1, 5, 2), seed=1)
    upsample = functools.partial(ops.upsample_linear, align_corners=align_corners)
    before = upsample(ops.conv3d(image, kernel), factors)
    after = ops.conv3d(upsample(image, factors), kernel)
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-12)
    found = ops.conv3d_upsampled(
        [image], kernel, factors=[factors], align_corners=align_corners
    )
    np.testing.assert_allclose(found, after, rtol=0, atol=1e-12)


# Kernel sizes, factors of up-sampling to (4, 4, 8), and align_corners. In each case,
# one input is up-sampled too little to be projected first; the last inputs have fewer
# channels than twice the number of filters.
CASES = [
    ((3, 3, 3), ((1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 4, 4)), False),
    ((3, 3, 3), ((1, 1, 1), (1, 2, 1), (2, 4, 8)), True),
    ((1, 3, 5), ((1, 1, 1), (2, 1, 2), (4, 2, 2)), False),
    ((3, 1, 1), ((1, 2, 4),), True),
    ((1, 1, 1), ((1, 1, 1), (2, 2, 4)), False),
]


@pytest.mark.parametrize(
    ("sizes", "factors", "align_corners", "execution"), every_execution(CASES)
)
def test_is_the_convolution_of_the_concatenated_map(
    sizes, factors, align_corners, execution
):
    shape = np.array([4, 4, 8])
    tensors = [
        draw((2, *shape // each, 2 + seed), seed=seed)
        for seed, each in enumerate(factors)
    ]
    kernel = draw((*sizes, sum(t.shape[-1] for t in tensors), 3), seed=9)
    upstream = draw((2, *shape, 3), seed=10)
    options = {"factors": factors, "align_corners": align_corners}

    def ours(weights, *inputs):
        weights = tf.ensure_shape(weights, kernel.shape)
        return ops.conv3d_upsampled(inputs, weights, **options)

    outputs, gradients = differentiate(ours, (kernel, *tensors), upstream, execution)
    expected, expected_gradients = differentiate(
        lambda weights, *inputs: naive(inputs, weights, **options),
        (kernel, *tensors),
        upstream,
    )
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-11)
    assert_all_close(gradients, expected_gradients, atol=1e-10)


def test_bias():
    tensors = [draw((1, 2, 2, 2, 3)), draw((1, 1, 1, 1, 3))]
    kernel, bias = draw((3, 3, 3, 6, 2), seed=1), draw((2,), seed=2)
    run = functools.partial(
        ops.conv3d_upsampled, tensors, kernel, factors=((1, 1, 1), (2, 2, 2))
    )
    np.testing.assert_allclose(run(bias), run() + bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(dtype):
    tensors = [draw((1, 4, 4, 4, 4)), draw((1, 2, 2, 2, 4), seed=1)]
    kernel = draw((3, 3, 3, 8, 2), seed=2) / 15
    factors = ((1, 1, 1), (2, 2, 2))
    expected = naive(tensors, kernel, factors=factors)
    half = [tf.constant(array, dtype) for array in (kernel, *tensors)]
    found, gradients = differentiate(
        lambda weights, *inputs: ops.conv3d_upsampled(inputs, weights, factors=factors),
        half,
        tf.ones_like(expected, dtype),
    )
    assert {found.dtype, *(each.dtype for each in gradients)} == {half[0].dtype}
    np.testing.assert_allclose(tf.cast(found, tf.float64), expected, atol=0.05)


def test_strongly_up_sampled_inputs_are_never_enlarged():
    full, channels, filters = 8**3, (4, 60), 2

    @tf.function(autograph=False)
    def run(near, far, kernel):
        return ops.conv3d_upsampled(
            [near, far], kernel, factors=((1, 1, 1), (4, 4, 4)), implementation="plain"
        )

    graph = run.get_concrete_function(
        tf.zeros((1, 8, 8, 8, channels[0])),
        tf.zeros((1, 2, 2, 2, channels[1])),
        tf.zeros((3, 3, 3, sum(channels), filters)),
    ).graph
    sizes = [
        output.shape.num_elements() or 0
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank == 5
    ]
    # The near input and the outputs; sizes of kernels are not multiples.
    maps = {size // full for size in sizes if size % full == 0}
    assert maps == {channels[0], filters}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [tf.zeros((1, 2, 2, 3))]}, r"\(N, D, H, W, C\)"),
        ({"kernel": tf.zeros((3, 3, 3, 4, 1))}, r"channels of all inputs.*\[3\]"),
        ({"kernel": tf.zeros((3, 2, 3, 3, 1))}, r"odd.*\(3, 2, 3, 3, 1\)"),
        ({"factors": []}, "one entry per input"),
        ({"factors": [(1, 0, 1)]}, "`factors` must be three integers"),
        ({"implementation": "other"}, "`implementation` must be one of"),
    ],
)
def test_rejects(change, message):
    arguments = {
        "inputs": [tf.zeros((1, 2, 2, 2, 3))],
        "kernel": tf.zeros((3, 3, 3, 3, 1)),
        "factors": [(1, 1, 1)],
    }
    with pytest.raises(ValueError, match=message):
        ops.conv3d_upsampled(**{**arguments, **change})
