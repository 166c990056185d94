"""The kernels are used where a small example of them works."""

import numpy as np
import pytest
import tensorflow as tf
import triton_interpreter

from u2net_tf.networks.ops.implementations.triton import availability, operations

find = availability.reason_unavailable.__wrapped__


@pytest.fixture
def gpu(monkeypatch):
    """Lets the CPU take the place of a GPU, with interpreted kernels."""
    device = tf.config.LogicalDevice("/device:CPU:0", "GPU")
    monkeypatch.setattr(
        availability.tf.config, "list_logical_devices", lambda kind: [device]
    )
    monkeypatch.setattr(operations, "launch", triton_interpreter.launch)
    example = availability._compiled_example.python_function
    monkeypatch.setattr(availability, "_compiled_example", example)


def test_without_a_gpu():
    assert find() == "there is no GPU"


@pytest.mark.usefixtures("gpu")
def test_kernels_that_work(monkeypatch):
    launched = []

    def launch(program, *arguments):
        launched.append(program.kernel.name)
        return triton_interpreter.launch(program, *arguments)

    monkeypatch.setattr(operations, "launch", launch)
    assert find() is None
    # Without and with up-sampling.
    assert launched == ["depthwise", "depthwise", "depthwise_kernel_gradient"] * 2


def test_values_of_the_example_differ():
    assert np.unique(availability._values((101,))).size == 101


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("name", "added", "error"),
    [
        # Outputs are up to 1.3, and the first gradient of the kernel up to 15.
        ("depthwise", 4e-5, "3.0e-05"),
        ("depthwise_kernel_gradient", 2e-3, "1.3e-04"),
        ("depthwise_kernel_gradient", float("nan"), "nan"),
        ("depthwise_kernel_gradient", 1e-4, None),
    ],
)
def test_wrong_results(monkeypatch, name, added, error):
    launched = []

    def launch(program, *arguments):
        outputs = triton_interpreter.launch(program, *arguments)
        launched.append(program.kernel.name)
        # Gradients of the inputs remain as they are.
        is_changed = program.kernel.name == name and launched.count(name) in (1, 3)
        return outputs + added if is_changed else outputs

    monkeypatch.setattr(operations, "launch", launch)
    assert find() == (
        error and f"a convolution on /device:CPU:0 has a relative error of {error}"
    )


@pytest.mark.usefixtures("gpu")
def test_kernels_that_cannot_be_compiled(monkeypatch):
    def fail():
        raise tf.errors.InternalError(None, None, "no ptxas\n\t[[step]]")

    monkeypatch.setattr(availability, "_compiled_example", fail)
    assert find() == "XLA cannot compile them for /device:CPU:0: no ptxas"


def test_xla_for_a_cpu_cannot_compile_them(monkeypatch):
    """What happens on a device without Triton, with XLA's own error."""
    device = tf.config.list_logical_devices("CPU")[0]
    monkeypatch.setattr(
        availability.tf.config, "list_logical_devices", lambda kind: [device]
    )
    assert find().startswith(f"XLA cannot compile them for {device.name}: ")
    assert "__gpu$xla.gpu.triton" in find()


def test_is_found_once(monkeypatch):
    availability.reason_unavailable()
    monkeypatch.setattr(availability, "_compiled_example", None)
    assert availability.reason_unavailable() == "there is no GPU"


def test_xla_compiles_the_example():
    function = availability._compiled_example.get_concrete_function()
    assert function.function_def.attr["_XlaMustCompile"].b
