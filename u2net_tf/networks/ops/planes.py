"""The depthwise convolution as 2D convolutions of depth slices, and its gradient."""

import tensorflow as tf

from u2net_tf.networks.ops.shapes import dims

# Up to so many samples, the gradient of the kernel is taken sample by sample.
_MOST_SAMPLES = 4


def _depth_rows(tensor, radius):
    """Pads the depth with `radius` zeros and folds it into the batch.

    A depth tap is then a slice of the leading axis, which TensorFlow takes without
    copying, and the zeros between two samples keep them apart.
    """
    padded = tf.pad(tensor, [[0, 0], [radius, radius], [0, 0], [0, 0], [0, 0]])
    num, depth, height, width, channels = dims(padded)
    return tf.reshape(padded, [num * depth, height, width, channels])


def _slice_rows(rows, start, num_rows):
    return tf.slice(rows, [start, 0, 0, 0], [num_rows, -1, -1, -1])


def convolve_planes(inputs, kernel):
    """Convolves by a 2D depthwise convolution for each depth tap."""
    num, depth, height, width, channels = shape = dims(inputs)
    radius = kernel.shape[0] // 2
    rows = _depth_rows(inputs, radius)
    num_outputs = num * (depth + 2 * radius) - 2 * radius
    outputs = tf.add_n(
        [
            tf.raw_ops.DepthwiseConv2dNative(
                input=_slice_rows(rows, tap, num_outputs),
                filter=kernel_2d,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            for tap, kernel_2d in enumerate(tf.unstack(kernel[..., tf.newaxis]))
        ]
    )
    if not isinstance(num, int) or num > 1:
        # Between two samples stand 2 * radius rows that mix both: leave them out.
        outputs = tf.pad(outputs, [[0, 2 * radius], [0, 0], [0, 0], [0, 0]])
        outputs = tf.reshape(
            outputs, [num, depth + 2 * radius, height, width, channels]
        )[:, :depth]
    return tf.reshape(outputs, shape)


def kernel_gradient(inputs, upstream, kernel):
    """Returns the gradient of the kernel, made of 2D filter gradients."""
    num_taps, (num, depth) = kernel.shape[0], inputs.shape[:2]
    if num is not None and depth is not None and num <= _MOST_SAMPLES:
        samples = zip(tf.unstack(inputs), tf.unstack(upstream), strict=True)
        parts = [_taps_of_sample(*sample, kernel) for sample in samples]
        taps = [tf.add_n(same_tap) for same_tap in zip(*parts, strict=True)]
    else:
        radius = num_taps // 2
        rows, upstream_rows = (_depth_rows(t, radius) for t in (inputs, upstream))
        # The padding of the upstream gradient silences the rows between two samples.
        num_outputs = dims(rows)[0] - 2 * radius
        upstream_rows = _slice_rows(upstream_rows, radius, num_outputs)
        taps = [
            _filter_gradient(_slice_rows(rows, tap, num_outputs), upstream_rows, kernel)
            for tap in range(num_taps)
        ]
    return tf.reshape(tf.stack(taps), kernel.shape)


def _taps_of_sample(inputs, upstream, kernel):
    """The depth taps of one sample's kernel gradient; slices of it are not copied."""
    depth, taps = inputs.shape[0], []
    for tap in range(kernel.shape[0]):
        offset = tap - kernel.shape[0] // 2
        if abs(offset) >= depth:
            taps.append(tf.zeros([*kernel.shape[1:], 1], inputs.dtype))
            continue
        seen = inputs[max(offset, 0) : depth + min(offset, 0)]
        given = upstream[max(-offset, 0) : depth - max(offset, 0)]
        taps.append(_filter_gradient(seen, given, kernel))
    return taps


def _filter_gradient(rows, upstream, kernel):
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=rows,
        filter_sizes=[*kernel.shape[1:], 1],
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
