"""The interpreter finds the faults that a GPU would not report, or only a GPU."""

import numpy as np
import pytest
import triton_interpreter

from u2net_tf.networks.ops.implementations.triton.language import Kernel


def run(write, size=4, inputs=None):
    """Runs a program of a kernel that `write` writes; returns the outputs."""
    kernel = Kernel("example", {"inputs": "f32", "outputs": "f32"}, 4)
    write(kernel, kernel.pointer("inputs"), kernel.pointer("outputs"), kernel.lanes())
    outputs = np.zeros(size, "f")
    inputs = np.arange(4, dtype="f") if inputs is None else inputs
    triton_interpreter.run(kernel.text(), 1, [inputs, outputs])
    return outputs


def copy(kernel, inputs, outputs, lanes):
    kernel.store(outputs + lanes, kernel.load(inputs + lanes))


def test_copies():
    def write(kernel, inputs, outputs, lanes):
        values = kernel.load(inputs + lanes, lanes < 3)
        kernel.store(outputs + lanes, values + 0.5)

    np.testing.assert_array_equal(run(write), [0.5, 1.5, 2.5, 0.5])


def test_reading_outside():
    def write(kernel, inputs, outputs, lanes):
        kernel.store(outputs + lanes, kernel.load(inputs + lanes + 1))

    with pytest.raises(AssertionError, match="outside %inputs"):
        run(write)


def test_writing_outside():
    with pytest.raises(AssertionError, match="outside %outputs"):
        run(copy, size=3)


def test_writing_a_part():
    def write(kernel, inputs, outputs, lanes):
        kernel.store(outputs + lanes, kernel.load(inputs + lanes), lanes < 3)

    with pytest.raises(AssertionError, match="written once: 75%"):
        run(write)


def test_division_rounds_towards_zero():
    def write(kernel, inputs, outputs, lanes):
        quotients, remainders = (lanes - 3) // 2, (lanes - 3) % 2
        values = kernel.load(inputs + (quotients + 1))
        kernel.store(
            outputs + lanes, values + kernel.load(inputs + (remainders + 1)) * 10.0
        )

    # Quotients -1, -1, 0, 0 and remainders -1, 0, -1, 0.
    np.testing.assert_array_equal(run(write), [0, 10, 1, 11])


def test_overflow():
    def write(kernel, inputs, outputs, lanes):
        kernel.store(outputs + (lanes + (2**31 - 2)), kernel.load(inputs + lanes))

    with pytest.raises(AssertionError, match="i32 overflows"):
        run(write)


def test_storing_another_dtype():
    def write(kernel, inputs, outputs, lanes):
        kernel.store(outputs + lanes, kernel.load(inputs + lanes).to("f16"))

    with pytest.raises(AssertionError, match=r"types \['tensor<4xf16>'\]"):
        run(write)


def test_converting_to_the_same_size():
    def write(kernel, inputs, outputs, lanes):
        half = kernel.load(inputs + lanes).to("f16")
        kernel.store(outputs + lanes, half.to("bf16").to("f32"))

    with pytest.raises(AssertionError, match="truncf"):
        run(write)


def test_array_of_another_dtype():
    with pytest.raises(AssertionError, match="%inputs: f32, float64"):
        run(copy, inputs=np.arange(4.0))
