"""Losses: pure functions of (labels, logits)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks import ops


def _prepare(
    labels: tf.Tensor, logits: tf.Tensor, ignore_index: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns voxel labels (P,) int32 and logits (P, K), float32 or float64."""
    labels, logits = tf.convert_to_tensor(labels), tf.convert_to_tensor(logits)
    if not labels.dtype.is_integer:
        raise ValueError(
            f"`labels` must be integers. Received: labels.dtype={labels.dtype.name}"
        )
    if logits.shape.rank is None or not labels.shape.is_compatible_with(
        logits.shape[:-1]
    ):
        raise ValueError(
            "`logits` must have the shape of `labels` and one more axis, the classes. "
            f"Received: labels.shape={labels.shape}, logits.shape={logits.shape}"
        )
    if ignore_index is not None and 0 <= ignore_index < logits.shape[-1]:
        raise ValueError(
            "`ignore_index` must not be the index of a class. Received: "
            f"ignore_index={ignore_index}, {logits.shape[-1]} classes"
        )
    if logits.dtype != tf.float64:
        logits = tf.cast(logits, tf.float32)
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    return labels, tf.reshape(logits, [-1, logits.shape[-1]])


def lovasz_softmax(
    labels: tf.Tensor, logits: tf.Tensor, *, ignore_index: int | None = None
) -> tf.Tensor:
    """Computes Lovász-Softmax, a convex surrogate of the Jaccard loss.

    The loss is the mean over all classes, present or not; the batch is one long list of
    voxels.

    Args:
      labels: integer tensor of shape (N, D, H, W), values 0 to K - 1 or `ignore_index`.
      logits: tensor of shape (N, D, H, W, K), before the softmax.
      ignore_index: label of voxels that are left out; None if there are none.

    Returns:
      A scalar, float32 (float64 for float64 logits); 0 if all voxels are left out.

    Raises:
      ValueError: if the labels are not integers, the shapes do not match or
        `ignore_index` is the index of a class.

    Reference:
      Berman et al., The Lovász-Softmax loss, CVPR 2018, algorithm 1; 3D U²-Net,
      section 3. A class that is absent costs its largest error, as published.
    """
    labels, logits = _prepare(labels, logits, ignore_index)
    num_classes = logits.shape[-1]
    is_binary = num_classes == 2 and ignore_index is None
    if is_binary:
        # A voxel's error is the same in both classes, so one sorted row serves both.
        foreground = tf.equal(labels, 1)[tf.newaxis]
        margin = (logits[:, 1] - logits[:, 0])[tf.newaxis]
        errors = tf.sigmoid(tf.where(foreground, -margin, margin))
    else:
        # One row per class: sorting runs along the last axis, in parallel over rows.
        foreground = tf.equal(tf.range(num_classes)[:, tf.newaxis], labels)
        probabilities = tf.transpose(tf.nn.softmax(logits))
        errors = tf.where(foreground, 1.0 - probabilities, probabilities)
    if ignore_index is not None:
        # Sorted behind all others, they belong to no class and add nothing.
        zero = tf.zeros([], errors.dtype)
        errors = tf.where(tf.equal(labels, ignore_index), zero, errors)
    sorted_foreground, order = _sort(tf.stop_gradient(errors), foreground)
    weights = _jaccard_steps(sorted_foreground, logits.dtype)
    if is_binary:
        weights += _jaccard_steps(~sorted_foreground, logits.dtype)
    # The weights are put back into voxel order, instead of gathering the sorted errors:
    # the gradient then needs no sorting or scattering.
    weights = _undo_order(weights, order)
    return tf.reduce_sum(errors * weights) / num_classes


def _sort(errors: tf.Tensor, foreground: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `foreground` (R, P), each row by descending error, and the order.

    In float32, error, voxel and class fit into one integer, which is sorted without a
    gather afterwards.
    """
    num_voxels = tf.shape(errors)[1]
    if errors.dtype != tf.float32:
        _, order = tf.math.top_k(errors, k=num_voxels)
        return tf.gather(foreground, order, batch_dims=1), order
    # The bits of non-negative floats, read as integers, sort in the same order.
    keys = tf.cast(tf.bitcast(errors, tf.int32), tf.int64) * 2**32
    keys += 2 * tf.range(tf.cast(num_voxels, tf.int64)) + tf.cast(foreground, tf.int64)
    keys = tf.sort(keys, axis=1, direction="DESCENDING")
    low = tf.bitwise.bitwise_and(keys, tf.constant(2**32 - 1, tf.int64))
    return tf.equal(low % 2, 1), tf.cast(low // 2, tf.int32)


def _undo_order(values: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Scatters `values` (R, P) to the positions `order` (R, P): a gather's inverse."""
    # Inverting the order and gathering takes a sixth of the time of a scatter.
    invert = ops.IMPLEMENTATIONS[ops.current_implementation()].invert_permutation
    rows = zip(tf.unstack(values), tf.unstack(order), strict=True)
    return tf.stack([tf.gather(row, invert(places)) for row, places in rows])


def _jaccard_steps(foreground: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns the increase of the Jaccard loss with each further misclassified voxel.

    With an intersection I and a union U after the voxel, a foreground voxel
    adds 1 / U and a background voxel I / (U (U - 1)). The difference of two
    neighbouring losses is the same number, but at millions of voxels float32 would
    lose most of its digits to cancellation.

    Args:
      foreground: Boolean tensor of shape (K, P), sorted by descending error.
      dtype: floating type of the result.

    Returns:
      A tensor of shape (K, P).
    """
    # Integers: float32 cannot count beyond 2²⁴ voxels.
    seen = tf.cumsum(tf.cast(foreground, tf.int32), axis=1)
    total = seen[:, -1:]
    rank = tf.range(1, tf.shape(foreground)[1] + 1)
    left = tf.cast(total - seen, dtype)
    union = tf.cast(total + rank - seen, dtype)
    steps = tf.where(
        foreground, 1.0 / union, tf.math.divide_no_nan(left, union * (union - 1.0))
    )
    # An absent class: the first voxel already takes the loss from 0 to 1.
    absent = tf.logical_and(tf.equal(total, 0), tf.equal(rank, 1))
    return tf.where(absent, tf.ones_like(steps), steps)


def focal(
    labels: tf.Tensor,
    logits: tf.Tensor,
    *,
    gamma: float = 2.0,
    detach_factor: bool = False,
    ignore_index: int | None = None,
) -> tf.Tensor:
    """Computes the focal loss: the mean over voxels of -(1 - p)^γ log p.

    p is the predicted probability of the labelled class.

    Args:
      labels: integer tensor of shape (N, D, H, W), values 0 to K - 1 or `ignore_index`.
      logits: tensor of shape (N, D, H, W, K), before the softmax.
      gamma: focusing exponent, at least 0; 0 gives the cross-entropy.
      detach_factor: whether (1 - p)^γ is a constant when differentiating.
      ignore_index: see `lovasz_softmax`.

    Returns:
      A scalar, float32 (float64 for float64 logits); 0 if all voxels are left out.

    Raises:
      ValueError: if `gamma` is negative, the labels are not integers, the shapes
        do not match or `ignore_index` is the index of a class.

    Reference:
      Lin et al., Focal loss, ICCV 2017, equation 4. As there, the factor is
      differentiated; the published code of 3D U²-Net detaches it, which
      `detach_factor=True` reproduces.
    """
    if gamma < 0:
        raise ValueError(f"`gamma` must be at least 0. Received: gamma={gamma}")
    labels, logits = _prepare(labels, logits, ignore_index)
    is_used = None
    if ignore_index is not None:
        is_used = tf.not_equal(labels, ignore_index)
        labels = tf.where(is_used, labels, 0)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    # 1 - p without cancellation, and never 0: x^γ has no gradient there for γ < 1.
    miss = tf.maximum(-tf.math.expm1(-cross_entropy), _smallest_normal(logits.dtype))
    factor = tf.pow(miss, tf.cast(gamma, logits.dtype))
    if detach_factor:
        factor = tf.stop_gradient(factor)
    losses = factor * cross_entropy
    if is_used is None:
        return tf.reduce_mean(losses)
    count = tf.reduce_sum(tf.cast(is_used, tf.int32))
    total = tf.reduce_sum(tf.where(is_used, losses, tf.zeros([], losses.dtype)))
    return tf.math.divide_no_nan(total, tf.cast(count, losses.dtype))


def _smallest_normal(dtype: tf.DType) -> tf.Tensor:
    return tf.constant(2.0**-1022 if dtype == tf.float64 else 2.0**-126, dtype)


def segmentation_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    *,
    gamma: float = 2.0,
    detach_factor: bool = False,
    ignore_index: int | None = None,
) -> tf.Tensor:
    """Computes Lovász-Softmax plus focal loss, the training loss of 3D U²-Net.

    Args:
      labels: integer tensor of shape (N, D, H, W), values 0 to K - 1 or `ignore_index`.
      logits: tensor of shape (N, D, H, W, K), before the softmax.
      gamma: see `focal`.
      detach_factor: see `focal`.
      ignore_index: see `lovasz_softmax`.

    Returns:
      A scalar, float32 (float64 for float64 logits); 0 if all voxels are left out.

    Raises:
      ValueError: see `focal`.
    """
    return lovasz_softmax(labels, logits, ignore_index=ignore_index) + focal(
        labels,
        logits,
        gamma=gamma,
        detach_factor=detach_factor,
        ignore_index=ignore_index,
    )


def region_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    regions: Sequence[Sequence[int]],
    *,
    gamma: float = 2.0,
    detach_factor: bool = False,
    ignore_index: int | None = None,
) -> tf.Tensor:
    """Computes the mean of the losses of regions, each against all other voxels.

    The probability of a region is the sum of those of its classes. The loss of a region
    is the `segmentation_loss` of the two classes "outside" and "inside".

    Args:
      labels: integer tensor of shape (N, D, H, W), values 0 to K - 1 or `ignore_index`.
      logits: tensor of shape (N, D, H, W, K), before the softmax.
      regions: indices of the classes of each region, at least one region; neither none
        nor all of the K classes.
      gamma: see `focal`.
      detach_factor: see `focal`.
      ignore_index: see `lovasz_softmax`.

    Returns:
      A scalar, float32 (float64 for float64 logits); 0 if all voxels are left out.

    Raises:
      ValueError: see `focal`; also if there are no regions, or one consists of none or
        all of the classes or of others.
    """
    labels, logits = _prepare(labels, logits, ignore_index)
    num_classes = logits.shape[-1]
    if not regions:
        raise ValueError("`regions` must contain at least one region. Received: none")
    per_class = tf.unstack(logits, axis=-1)
    total = tf.zeros([], logits.dtype)
    for region in regions:
        outside = set(range(num_classes)) - set(region)
        if not region or not outside or not set(region) <= set(range(num_classes)):
            raise ValueError(
                "`regions` must consist of some, but not all, of the classes 0 to "
                f"{num_classes - 1}. Received: {list(region)}"
            )
        # The softmax of these two logits gives the sums of the probabilities.
        of_two = [
            tf.reduce_logsumexp(tf.stack([per_class[i] for i in group]), axis=0)
            for group in (sorted(outside), region)
        ]
        inside = tf.reduce_any([tf.equal(labels, index) for index in region], axis=0)
        inside = tf.cast(inside, tf.int32)
        if ignore_index is not None:
            inside = tf.where(tf.equal(labels, ignore_index), 2, inside)
        total += segmentation_loss(
            inside,
            tf.stack(of_two, axis=-1),
            gamma=gamma,
            detach_factor=detach_factor,
            ignore_index=None if ignore_index is None else 2,
        )
    return total / len(regions)
