"""Triton kernels of depthwise convolutions and their gradients.

A program goes through the slices of its range and reads the shifted neighbours of its
voxels once per slice: each serves all depth taps, whose sums the program carries to the
next slices. Sums are float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from u2net_tf.networks.ops.implementations.triton.language import (
    DTYPES,
    Kernel,
    Value,
)
from u2net_tf.networks.ops.implementations.triton.maps import (
    Maps,
    Neighbours,
    Slices,
    Tiling,
)

# Position along the depth, among the rows and among the columns of a kernel.
Tap = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Program:
    """A kernel with the number of programs and warps to run it with.

    Attributes:
      kernel: the kernel.
      num_programs: number of programs.
      warps: see `Tiling`.
    """

    kernel: Kernel
    num_programs: int
    warps: int


def correlation(
    maps: Maps,
    kernel_size: Sequence[int],
    first_offsets: Sequence[int],
    tiling: Tiling,
    *,
    has_bias: bool,
) -> Program:
    """Writes the kernel of a depthwise correlation.

    It computes outputs[n, c, d, h, w] = bias[c] + the sum over i, j, k of
    kernel[i, j, k, c] * repeated[n, c, sd·d + fd + i, sh·h + fh + j, sw·w + fw + k],
    with the strides s and first offsets f; voxels outside are 0.

    Args:
      maps: shapes of the maps.
      kernel_size: numbers of i, j and k; at least the strides.
      first_offsets: fd, fh and fw, such that a voxel at a multiple of the strides is
        read for the output there: at most 0, and more than -kernel_size.
      tiling: division of the outputs.
      has_bias: whether there is a bias.

    Returns:
      A kernel of the arrays `inputs`, `kernel` (float32), `bias` (float32) if there is
      one, and `outputs`.
    """
    biases = {"bias": "f32"} if has_bias else {}
    element = DTYPES[maps.dtype]
    arguments = {"inputs": element, "kernel": "f32", **biases, "outputs": element}
    kernel = Kernel("depthwise", arguments, tiling.voxels)
    slices = Slices(kernel, maps, tiling)
    weights = _load_weights(slices, kernel_size)
    start = kernel.constant(0, "f32", is_block=True)
    if has_bias:
        start = kernel.repeated(kernel.load(kernel.pointer("bias") + slices.channel))
    rows, columns = (
        range(first, first + size)
        for first, size in zip(first_offsets[1:], kernel_size[1:], strict=True)
    )
    neighbours = slices.read("inputs", rows, columns)
    outputs = slices.of_outputs("outputs")
    step = maps.size[1] * maps.size[2]

    def store(index: Value, sums: Value, is_inside: Value) -> None:
        mask = slices.inside & is_inside
        kernel.store(outputs + index * step, sums.to(element), mask)

    depth_taps = _depth_taps(maps.stride[0], kernel_size[0], first_offsets[0])
    shifts = sorted(set().union(*depth_taps))
    before, after = -shifts[0], shifts[-1]
    first = (slices.first - after).maximum(0)
    end = (slices.end + before).minimum(maps.size[0])
    with kernel.loop(first, end, [start] * (before + after)) as loop:
        sums = _sum_slices(neighbours, loop.index, depth_taps, weights)
        # Those carried belong to the outputs index - before, …, index + after - 1.
        earlier = [*loop.carried, start]
        totals = [one + sums[s] for one, s in zip(earlier, shifts, strict=True)]
        done = loop.index - before
        store(done, totals[0], done >= slices.first)
        loop.carry(totals[1:])
    for position, total in enumerate(loop.results):
        index = end + (position - before)
        store(index, total, (index >= slices.first) & (index < slices.end))
    return Program(kernel, slices.num_programs, tiling.warps)


def _load_weights(slices: Slices, kernel_size: Sequence[int]) -> Mapping[Tap, Value]:
    """Returns the weights of the program's channel, each repeated for all voxels."""
    kernel = slices.kernel
    first = kernel.pointer("kernel") + slices.channel
    depth, rows, columns = map(range, kernel_size)
    return {
        tap: kernel.repeated(kernel.load(first + position * slices.maps.channels))
        for position, tap in enumerate(itertools.product(depth, rows, columns))
    }


def _depth_taps(stride: int, size: int, first: int) -> Sequence[Mapping[int, int]]:
    """Returns which depth taps read a slice, and for which outputs.

    Slice stride · g + j of the repeated inputs is read for the output g + s by the tap
    j - stride · s - first.

    Args:
      stride: stride along the depth.
      size: number of depth taps.
      first: offset of the first tap.

    Returns:
      For j = 0, …, stride - 1: s -> tap.
    """
    return [
        {
            (j - first - tap) // stride: tap
            for tap in range(size)
            if (j - first - tap) % stride == 0
        }
        for j in range(stride)
    ]


def _sum_slices(
    neighbours: Neighbours,
    group: Value,
    depth_taps: Sequence[Mapping[int, int]],
    weights: Mapping[Tap, Value],
) -> Mapping[int, Value]:
    """Returns what a group of slices adds to the outputs group + s.

    Args:
      neighbours: reader of the inputs.
      group: index of the group.
      depth_taps: see `_depth_taps`.
      weights: tap -> weight.

    Returns:
      s -> sum.
    """
    sums: dict[int, Value] = {}
    for j, taps in enumerate(depth_taps):
        for (row, column), voxels in neighbours.load(group, j).items():
            wide = voxels.to("f32")
            for shift, tap in taps.items():
                part = wide * weights[tap, row, column]
                sums[shift] = sums[shift] + part if shift in sums else part
    return sums


def kernel_gradient(maps: Maps, kernel_size: Sequence[int], tiling: Tiling) -> Program:
    """Writes the kernel of the gradient of a depthwise kernel, of stride 1.

    Args:
      maps: shapes of the maps of the convolution.
      kernel_size: kd, kh, kw, all odd; padding is 'SAME'.
      tiling: division of the outputs of the convolution.

    Returns:
      A kernel of the arrays `inputs`, `upstream` (gradient of the outputs) and `parts`
      (float32): the gradient's parts (kd·kh·kw, N, C, P), to be summed over N and P.
    """
    element = DTYPES[maps.dtype]
    arguments = {"inputs": element, "upstream": element, "parts": "f32"}
    kernel = Kernel("depthwise_kernel_gradient", arguments, tiling.voxels)
    slices = Slices(kernel, maps, tiling)
    radius, *plane_radius = (size // 2 for size in kernel_size)
    rows, columns = (range(-r, r + 1) for r in plane_radius)
    neighbours = slices.read("inputs", rows, columns)
    upstream = slices.of_outputs("upstream")
    step = maps.size[1] * maps.size[2]

    def load_upstream(index: Value) -> Value:
        in_range = (index >= slices.first) & (index < slices.end)
        mask = slices.inside & in_range
        return kernel.load(upstream + index * step, mask).to("f32")

    first = (slices.first - radius).maximum(0)
    end = (slices.end + radius).minimum(maps.size[0])
    # Of the outputs that read a slice, the last is loaded with it.
    window = [load_upstream(first + (i - radius)) for i in range(kernel_size[0] - 1)]
    zero = kernel.constant(0, "f32", is_block=True)
    num_taps = math.prod(kernel_size)
    with kernel.loop(first, end, [*window, *[zero] * num_taps]) as loop:
        window, sums = loop.carried[:-num_taps], loop.carried[-num_taps:]
        window = [*window, load_upstream(loop.index + radius)]
        voxels = [v.to("f32") for v in neighbours.load(loop.index, 0).values()]
        # Depth tap i reads the slice for the output radius - i slices after it.
        products = (
            voxel * gradient for gradient in reversed(window) for voxel in voxels
        )
        sums = [total + part for total, part in zip(sums, products, strict=True)]
        loop.carry([*window[1:], *sums])
    parts = slices.blocks * slices.ranges
    place = slices.map * parts + slices.place
    for tap, total in enumerate(loop.results[-num_taps:]):
        target = kernel.pointer("parts") + (place + tap * maps.num_maps * parts)
        kernel.store(target, kernel.sum(total))
    return Program(kernel, slices.num_programs, tiling.warps)
