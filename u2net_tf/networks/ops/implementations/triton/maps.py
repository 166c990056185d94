"""Which voxels of feature maps a program of a kernel computes and reads.

Feature maps are (N, C, D, H, W). A program computes consecutive voxels of a slice, for
a range of slices of one map.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence

from u2net_tf.networks.ops.implementations.triton.language import Kernel, Value
from u2net_tf.networks.ops.shapes import Factors

_THREADS_PER_WARP = 32
_MAX_WARPS = 4


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the programs of a kernel divide a map.

    Attributes:
      voxels: consecutive voxels of a slice that a program computes, a power of two.
      slices: depth slices that it goes through.
      warps: groups of 32 threads that run it.
    """

    voxels: int
    slices: int
    warps: int

    @classmethod
    def of(cls, plane: int, *, voxels_per_thread: int, slices: int) -> Tiling:
        """Returns the tiling of slices of `plane` voxels, with fewer threads if small.

        Args:
          plane: voxels of a slice of the outputs.
          voxels_per_thread: voxels that a thread computes at most, a power of two.
          slices: depth slices that a program goes through.
        """
        threads, most = _THREADS_PER_WARP, _THREADS_PER_WARP * _MAX_WARPS
        while threads < most and threads * voxels_per_thread < plane:
            threads *= 2
        while voxels_per_thread > 1 and threads * voxels_per_thread // 2 >= plane:
            voxels_per_thread //= 2
        warps = threads // _THREADS_PER_WARP
        return cls(threads * voxels_per_thread, slices, warps)


@dataclasses.dataclass(frozen=True)
class Maps:
    """The maps of a convolution.

    Attributes:
      num: number of samples.
      channels: channels of the outputs.
      input_channels: channels of the inputs: as many, each the input of one output, or
        one, the input of all.
      size: D, H, W of the outputs.
      upsample: factors by which the inputs are repeated along D, H, W.
      stride: distances of the inputs of neighbouring outputs along D, H, W, after the
        inputs are repeated.
      dtype: dtype of the inputs, a key of `DTYPES`.
    """

    num: int
    channels: int
    input_channels: int
    size: Sequence[int]
    upsample: Factors
    stride: Factors
    dtype: str

    @property
    def repeated_size(self) -> list[int]:
        """D, H, W of the repeated inputs."""
        return [size * by for size, by in zip(self.size, self.stride, strict=True)]

    @property
    def input_size(self) -> list[int]:
        """D, H, W of the inputs."""
        pairs = zip(self.repeated_size, self.upsample, strict=True)
        return [size // by for size, by in pairs]

    @property
    def num_maps(self) -> int:
        """Number of maps of the outputs."""
        return self.num * self.channels


class Slices:
    """The voxels and the range of slices that a program of a kernel computes.

    Args:
      kernel: the kernel, to which their computation is added.
      maps: shapes of the maps.
      tiling: division of the outputs.

    Attributes:
      blocks: number of programs for a slice.
      ranges: number of programs along the depth.
      place: index of the program among those of its map.
      map: index of the map of the outputs.
      channel: its channel.
      voxel: indices of the voxels in a slice, a block.
      inside: which of them exist; the last block of a slice has others.
      row: their rows.
      column: their columns.
      first: first slice of the range.
      end: slice after the range.
    """

    def __init__(self, kernel: Kernel, maps: Maps, tiling: Tiling):
        depth, height, width = maps.size
        self.kernel, self.maps = kernel, maps
        self.blocks = -(-height * width // tiling.voxels)
        self.ranges = -(-depth // tiling.slices)
        program, per_map = kernel.program(), self.blocks * self.ranges
        self.place, self.map = program % per_map, program // per_map
        self.channel = self.map % maps.channels
        self.voxel = (self.place % self.blocks) * tiling.voxels + kernel.lanes()
        self.inside = self.voxel < height * width
        self.row, self.column = self.voxel // width, self.voxel % width
        self.first = (self.place // self.blocks) * tiling.slices
        self.end = (self.first + tiling.slices).minimum(depth)

    @property
    def num_programs(self) -> int:
        """Number of programs of all maps."""
        return self.maps.num_maps * self.blocks * self.ranges

    def of_outputs(self, argument: str) -> Value:
        """Returns pointers to the voxels in slice 0 of the program's map."""
        step = math.prod(self.maps.size)
        return self.kernel.pointer(argument) + self.map.to("i64") * step + self.voxel

    def read(
        self, argument: str, rows: Sequence[int], columns: Sequence[int]
    ) -> Neighbours:
        """Returns a reader of the neighbours at these offsets of the repeated inputs.

        Args:
          argument: name of the inputs.
          rows: offsets along H.
          columns: offsets along W.
        """
        source = self.map
        if self.maps.input_channels != self.maps.channels:
            source = self.map // self.maps.channels
        step = math.prod(self.maps.input_size)
        first = self.kernel.pointer(argument) + source.to("i64") * step
        return Neighbours(self, first, rows, columns)


class Neighbours:
    """Reads the shifted neighbours of a program's voxels in a slice of the inputs.

    Args:
      slices: the program's voxels.
      first: pointer to the map of the inputs.
      rows: offsets along H.
      columns: offsets along W.
    """

    def __init__(
        self, slices: Slices, first: Value, rows: Sequence[int], columns: Sequence[int]
    ):
        self._kernel, self._maps = slices.kernel, slices.maps
        _, height, width = self._maps.input_size
        self._step = height * width
        by_row = [self._shift(slices.row, offset, 1) for offset in rows]
        by_column = [self._shift(slices.column, offset, 2) for offset in columns]
        is_shifted = self._maps.upsample[1:] == self._maps.stride[1:] == (1, 1)
        center = first + slices.voxel
        # (position among the rows, among the columns) -> pointer, what to add to it
        # when it is used, and mask. Adding a constant is part of loading.
        self._places: dict[tuple[int, int], tuple[Value, int, Value]] = {}
        for (i, (row, above)), (j, (column, beside)) in itertools.product(
            enumerate(by_row), enumerate(by_column)
        ):
            mask = functools.reduce(operator.and_, (*above, *beside), slices.inside)
            if is_shifted:
                place = center, rows[i] * width + columns[j]
            else:
                place = first + (row * width + column), 0
            self._places[i, j] = *place, mask

    def _shift(self, index: Value, offset: int, axis: int) -> tuple[Value, list[Value]]:
        """Returns the index in the inputs, and the conditions that it is inside."""
        stride, factor = self._maps.stride[axis], self._maps.upsample[axis]
        moved = _scaled(index, stride)
        if offset:
            moved = moved + offset
        conditions = [moved >= 0] if offset < 0 else []
        if offset >= stride:
            conditions.append(moved < self._maps.repeated_size[axis])
        return moved // factor if factor > 1 else moved, conditions

    def load(self, group: Value, position: int) -> Mapping[tuple[int, int], Value]:
        """Returns the neighbours in a slice of the repeated inputs.

        Args:
          group: scalar i32, index of a group of as many slices as the stride.
          position: position of the slice in the group.

        Returns:
          (position of the offset among the rows, among the columns) -> voxels.
        """
        index = _scaled(group, self._maps.stride[0])
        if position:
            index = index + position
        if self._maps.upsample[0] > 1:
            index = index // self._maps.upsample[0]
        moved, starts, loaded = index * self._step, {}, {}
        for key, (pointer, offset, mask) in self._places.items():
            if pointer not in starts:
                starts[pointer] = pointer + moved
            start = starts[pointer] + offset if offset else starts[pointer]
            loaded[key] = self._kernel.load(start, mask)
        return loaded


def _scaled(index: Value, factor: int) -> Value:
    return index * factor if factor > 1 else index
