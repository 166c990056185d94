"""The depthwise convolution as multiply-adds of shifted maps, compiled by XLA."""

import itertools

import tensorflow as tf

from u2net_tf.networks.ops.implementations import exact_dtype, island
from u2net_tf.networks.ops.shapes import dims


def _phases(size, factor):
    """Where the taps of a kernel fall along an axis that is repeated `factor` times.

    Returns:
        For each of the `factor` places that one voxel becomes, a list of (offset,
        taps): the voxel so far away, before the repetition, is seen by these taps.
    """
    phases = []
    for place in range(factor):
        offsets = {}
        for tap in range(size):
            offset = (place + tap - size // 2) // factor
            offsets.setdefault(offset, []).append(tap)
        phases.append(sorted(offsets.items()))
    return phases


def _reach(phases):
    """How far these see before and behind a voxel."""
    offsets = [offset for phase in phases for offset, _ in phase]
    return -min(offsets), max(offsets)


def _add(parts):
    """Sum without a zero to begin with."""
    first, *others = parts
    return sum(others, start=first)


def _sum_of_taps(kernel, taps):
    return _add([kernel[tap] for tap in taps])


@island
def convolve_shifted(inputs, kernel, bias, factors):
    """Convolves the repeated inputs by multiply-adds of shifted maps.

    Where an axis is repeated, several taps see one voxel: a 3×3×3 kernel over a map
    repeated twice is eight 2×2×2 kernels over the map itself.
    """
    exact = exact_dtype(inputs.dtype)
    wide, kernel = tf.cast(inputs, exact), tf.cast(kernel, exact)
    _, depth, height, width, _ = dims(inputs)
    phases = [_phases(*pair) for pair in zip(kernel.shape[:3], factors, strict=True)]
    reach = [_reach(axis) for axis in phases]
    padded = tf.pad(wide, [[0, 0], *reach, [0, 0]])
    (first_d, _), (first_h, _), (first_w, _) = reach
    maps = []
    for phase_d, phase_h, phase_w in itertools.product(*phases):
        planes = []
        for offset_d, taps_d in phase_d:
            kernel_d, rows = _sum_of_taps(kernel, taps_d), []
            for offset_h, taps_h in phase_h:
                kernel_h, top = _sum_of_taps(kernel_d, taps_h), first_h + offset_h
                for offset_w, taps_w in phase_w:
                    left = first_w + offset_w
                    part = padded[:, :, top : top + height, left : left + width]
                    rows.append(part * _sum_of_taps(kernel_h, taps_w))
            # Each depth tap is shifted as a whole: XLA makes faster code of that.
            front = first_d + offset_d
            planes.append(_add(rows)[:, front : front + depth])
        maps.append(_add(planes) + tf.cast(bias, exact))
    return tf.cast(_interleave(maps, factors), inputs.dtype)


def _interleave(maps, factors):
    """Makes one map of those of all phases, the innermost axis first."""
    for axis in (3, 2, 1):
        factor = factors[axis - 1]
        if factor > 1:
            groups = [maps[i : i + factor] for i in range(0, len(maps), factor)]
            shape = dims(maps[0])
            shape[axis] = shape[axis] * factor
            maps = [
                tf.reshape(tf.stack(group, axis=axis + 1), shape) for group in groups
            ]
    (joint,) = maps
    return joint


@island
def gather_shifted(upstream, kernel, factors):
    """Gradient of the inputs of `convolve_shifted`: gathers what each voxel gave."""
    exact = exact_dtype(upstream.dtype)
    kernel = tf.cast(kernel, exact)
    phases = [_phases(*pair) for pair in zip(kernel.shape[:3], factors, strict=True)]
    reach = [_reach(axis) for axis in phases]
    # What was seen `offset` away is given back from the other side.
    paddings = [
        [after * factor, before * factor]
        for (before, after), factor in zip(reach, factors, strict=True)
    ]
    padded = tf.pad(tf.cast(upstream, exact), [[0, 0], *paddings, [0, 0]])
    factor_d, factor_h, factor_w = factors
    depth, height, width = (
        size // factor
        for size, factor in zip(dims(upstream)[1:4], factors, strict=True)
    )
    (_, last_d), (_, last_h), (_, last_w) = reach
    planes = []
    for place_d, phase_d in enumerate(phases[0]):
        for offset_d, taps_d in phase_d:
            kernel_d, rows = _sum_of_taps(kernel, taps_d), []
            for (place_h, phase_h), (place_w, phase_w) in itertools.product(
                enumerate(phases[1]), enumerate(phases[2])
            ):
                for offset_h, taps_h in phase_h:
                    kernel_h = _sum_of_taps(kernel_d, taps_h)
                    top = last_h - offset_h
                    for offset_w, taps_w in phase_w:
                        left = last_w - offset_w
                        part = padded[
                            :,
                            place_d::factor_d,
                            place_h::factor_h,
                            place_w::factor_w,
                        ][:, :, top : top + height, left : left + width]
                        rows.append(part * _sum_of_taps(kernel_h, taps_w))
            front = last_d - offset_d
            planes.append(_add(rows)[:, front : front + depth])
    return tf.cast(_add(planes), upstream.dtype)
