"""How Triton kernels divide maps among programs, and what XLA receives."""

import re

import numpy as np
import pytest
import tensorflow as tf
import triton_interpreter

from u2net_tf.networks.ops.implementations.triton import kernels, operations
from u2net_tf.networks.ops.implementations.triton.maps import Maps, Tiling


class TestTiling:
    @pytest.mark.parametrize(
        ("plane", "voxels_per_thread", "voxels", "warps"),
        [
            (128 * 128, 4, 512, 4),
            (128 * 128, 1, 128, 4),
            (16 * 16, 4, 256, 2),
            (8 * 8, 4, 64, 1),
            (8 * 8, 1, 64, 2),
            (4 * 4, 4, 32, 1),
            (1, 4, 32, 1),
        ],
    )
    def test_small_slices_have_fewer_threads(
        self, plane, voxels_per_thread, voxels, warps
    ):
        found = Tiling.of(plane, voxels_per_thread=voxels_per_thread, slices=7)
        assert found == Tiling(voxels, 7, warps)

    @pytest.mark.parametrize(
        ("tiling", "expected"),
        [
            (Tiling(512, 4, 4), 2 * 3 * 1 * 1),
            (Tiling(32, 4, 1), 2 * 3 * 2 * 1),
            (Tiling(32, 3, 1), 2 * 3 * 2 * 2),
        ],
    )
    def test_determines_the_programs(self, tiling, expected):
        maps = Maps(2, 3, 3, (4, 5, 7), (1, 1, 1), (1, 1, 1), "float32")
        program = kernels.kernel_gradient(maps, (3, 3, 3), tiling)
        assert program.num_programs == expected
        assert program.warps == tiling.warps


def test_xla_receives_the_kernel():
    inputs, kernel = tf.ones((2, 3, 4, 5, 6), tf.bfloat16), tf.ones((3, 3, 3, 6))

    @tf.function(jit_compile=True, autograph=False)
    def convolve(inputs, kernel):
        return operations.depthwise_conv3d(inputs, kernel, None, (1, 1, 1))

    hlo = convolve.experimental_get_compiler_ir(inputs, kernel)(stage="hlo")
    (call,) = (line for line in hlo.splitlines() if '"__gpu$xla.gpu.triton"' in line)
    assert "= bf16[2,6,3,4,5]{" in call
    assert "has_side_effect" not in call
    config = re.search(r'backend_config="?(\{name = .*\})', call)[1]
    config = config.replace('\\"', '"').replace("\\\\", "\\")
    text = re.search(r'ir = "(.*?)"', config)[1]
    unescaped = re.sub(r"\\([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), text)
    maps = Maps(2, 6, 6, (3, 4, 5), (1, 1, 1), (1, 1, 1), "bfloat16")
    tiling = Tiling.of(20, voxels_per_thread=4, slices=32)
    program = kernels.correlation(maps, (3, 3, 3), (-1, -1, -1), tiling, has_bias=False)
    assert unescaped == program.kernel.text()
    settings = {
        "num_stages": 1,
        "num_warps": 1,
        "grid_x": program.num_programs,
        "grid_y": 1,
        "grid_z": 1,
    }
    for name, value in settings.items():
        assert f"{name} = {value} : i32" in config
    assert 'name = "depthwise"' in config
    assert "debug = false" in config
    # Without this, Triton would not load several elements at once.
    assert text.count("{tt.divisibility = 16 : i32}") == 3


class Zeros:
    """A large array of zeros that keeps which of its elements are used."""

    size = 2**62

    def __init__(self, dtype):
        self.dtype, self.used = np.dtype(dtype), set()

    def reshape(self, size):
        return self

    def __getitem__(self, places):
        self.used |= set(np.atleast_1d(places).tolist())
        return np.zeros(np.shape(places), self.dtype)[()]

    def __setitem__(self, places, values):
        self.used |= set(places.tolist())


def test_large_maps_are_addressed_by_64_bits():
    depth, height, width = 2, 2**14, 2**15
    maps = Maps(1, 3, 3, (depth, height, width), (1, 1, 1), (1, 1, 1), "float32")
    tiling = Tiling(4096, 1, 4)
    # The first block of the last slice of the last map.
    blocks = height * width // 4096
    number, first = (2 * depth + 1) * blocks, (2 * depth + 1) * height * width
    programs = (
        kernels.correlation(maps, (3, 3, 3), (-1, -1, -1), tiling, has_bias=False),
        kernels.kernel_gradient(maps, (3, 3, 3), tiling),
    )
    for program, name in zip(programs, ("correlation", "gradient"), strict=True):
        inputs, second, last = (Zeros("f") for _ in range(3))
        arrays = [inputs, second, last]
        triton_interpreter.run_program(
            program.kernel.text(), number, arrays, Zeros(int)
        )
        # Two slices with a neighbour on the right and a row below.
        for slice_index in range(2):
            start = (2 * depth + slice_index) * height * width
            assert start in inputs.used
            assert start + width + 4096 in inputs.used
        assert min(inputs.used) == 2 * depth * height * width
        maps_of_outputs = last if name == "correlation" else second
        assert maps_of_outputs.used == set(range(first, first + 4096))


def test_large_maps_are_divided(monkeypatch):
    programs = []

    def launch(program, operands, shape, dtype):
        programs.append((program.kernel.block, program.num_programs, program.warps))
        return tf.zeros(shape, dtype)

    monkeypatch.setattr(operations, "launch", launch)
    maps, kernel = tf.zeros((1, 128, 64, 64, 1)), tf.zeros((3, 3, 3, 1))
    operations.depthwise_conv3d(maps, kernel, None, (1, 1, 1))
    operations.depthwise_input_gradient(maps, maps, kernel, (1, 1, 1))
    operations.depthwise_kernel_gradient(maps, maps, kernel, (1, 1, 1))
    outputs, gradient = (512, 8 * 4, 4), (128, 32 * 2, 4)
    assert programs == [outputs, outputs, gradient]
