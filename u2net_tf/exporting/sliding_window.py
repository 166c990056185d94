"""Sliding-window prediction of a volume as a TensorFlow graph.

The windows, their order and their weights are those of `inference.windows`, so that the
classes are the same. The probabilities of the entire volume are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.inference.windows import blending_weights


def predict_classes(
    volume: tf.Tensor,
    predict: Callable[[tf.Tensor], tf.Tensor],
    *,
    patch_size: Sequence[int],
    num_classes: int,
    overlap: float,
) -> tf.Tensor:
    """Returns the most probable class of each voxel of a volume.

    Args:
      volume: (z, y, x, C) float32 of any size. Along axes on which it is smaller than a
        window, it is padded on both sides with each modality's minimum.
      predict: (1, *patch_size, C) -> (1, *patch_size, K) probabilities.
      patch_size: z, y, x.
      num_classes: K.
      overlap: fraction of a window that the next one along an axis overlaps.

    Returns:
      (z, y, x) uint8; of equally probable classes, the first.
    """
    shape = tf.shape(volume)[:3]
    patch = tf.constant(patch_size)
    missing = tf.maximum(patch - shape, 0)
    padded = _pad(volume, missing // 2, missing - missing // 2)
    starts = [
        _window_starts(tf.shape(padded)[axis], size, overlap)
        for axis, size in enumerate(patch_size)
    ]
    weights = tf.constant(blending_weights(patch_size)[..., None])

    def add_window(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        along_y, along_x = tf.size(starts[1]), tf.size(starts[2])
        places = (
            number // (along_y * along_x),
            number // along_x % along_y,
            number % along_x,
        )
        start = tf.stack(
            [*(of[place] for of, place in zip(starts, places, strict=True)), 0]
        )
        window = tf.slice(padded, start, [*patch_size, volume.shape[3]])
        weighted = predict(window[tf.newaxis])[0] * weights
        size = [*patch_size, num_classes]
        # In place: the sums are not copied, since nothing else reads them.
        total = tf.raw_ops.TensorStridedSliceUpdate(
            input=total,
            begin=start,
            end=start + size,
            strides=[1, 1, 1, 1],
            value=tf.slice(total, start, size) + weighted,
        )
        return number + 1, total

    num_windows = tf.reduce_prod(tf.stack([tf.size(of) for of in starts]))
    sums = tf.zeros(tf.concat([tf.shape(padded)[:3], [num_classes]], axis=0))
    _, sums = tf.while_loop(
        lambda number, total: number < num_windows,
        add_window,
        (0, sums),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, None, None, num_classes]),
        ),
        parallel_iterations=1,
    )
    classes = tf.argmax(sums, axis=-1, output_type=tf.int32)
    inner = tf.slice(classes, missing // 2, shape)
    return tf.cast(inner, tf.uint8)


def _pad(volume: tf.Tensor, before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    paddings = tf.stack([before, after], axis=1)
    modalities = [
        tf.pad(modality, paddings, constant_values=tf.reduce_min(modality))
        for modality in tf.unstack(volume, axis=-1)
    ]
    return tf.stack(modalities, axis=-1)


def _window_starts(size: tf.Tensor, patch: int, overlap: float) -> tf.Tensor:
    stride = max(1, round(patch * (1 - overlap)))
    return tf.concat([tf.range(0, size - patch, stride), [size - patch]], axis=0)
