"""Nearest-neighbour up-sampling."""

import math

import tensorflow as tf

from u2net_tf.networks.ops.implementations import check_route, exact_dtype, island
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5, dims


def upsample_nearest(inputs, factors, *, route=None):
    """Repeats every voxel `factors` times along D, H, W.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        factors: Three integers of at least 1, along D, H, W.
        route: One of `ROUTES`; the current one if None.

    Returns:
        A tensor of shape (N, D·fd, H·fh, W·fw, C).

    Raises:
        ValueError: If `inputs` is not of rank 5, `factors` not three such integers or
            `route` not known.
    """
    inputs = tf.convert_to_tensor(inputs)
    check_rank_5(inputs)
    factors, route = check_factors("factors", factors), check_route(route)
    if factors == (1, 1, 1):
        return tf.identity(inputs)

    @tf.custom_gradient
    def upsample(inputs):
        return _repeat(route, inputs, factors), lambda upstream: pool(upstream)

    @tf.custom_gradient
    def pool(upstream):
        return add_repeated(route, upstream, factors), lambda second: upsample(second)

    return upsample(inputs)


@island
def _repeat(inputs, factors):
    """Repeats one axis at a time, as a broadcast over three dimensions.

    `tf.broadcast_to` stops at a handful of dimensions on the CPU. The innermost axis
    first: the later, larger copies then move longer runs.
    """
    for axis in (3, 2, 1):
        factor = factors[axis - 1]
        if factor > 1:
            shape = dims(inputs)
            outer, inner = _product(shape[: axis + 1]), _product(shape[axis + 1 :])
            rows = tf.reshape(inputs, [outer, 1, inner])
            shape[axis] = shape[axis] * factor
            inputs = tf.reshape(tf.broadcast_to(rows, [outer, factor, inner]), shape)
    return inputs


def _product(sizes):
    # `math.prod` does not begin with the first: 1 * tensor is one more operation.
    known = math.prod(size for size in sizes if isinstance(size, int))
    for size in sizes:
        if not isinstance(size, int):
            known = known * size
    return known


@island
def add_repeated(upstream, factors):
    """Adds up all that an up-sampling made of each voxel; the route goes first."""
    wide = tf.cast(upstream, exact_dtype(upstream.dtype))
    total = None
    for shift in _shifts(factors):
        d, h, w = shift
        fd, fh, fw = factors
        part = wide[:, d::fd, h::fh, w::fw]
        total = part if total is None else total + part
    return tf.cast(total, upstream.dtype)


def _shifts(factors):
    fd, fh, fw = factors
    return [(d, h, w) for d in range(fd) for h in range(fh) for w in range(fw)]
