"""The kernels are used where a small example of them works."""

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
def test_kernels_that_work():
    assert find() is None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("value", [1e-3, float("nan")])
def test_wrong_results(monkeypatch, value):
    def launch(*arguments):
        return triton_interpreter.launch(*arguments) + value

    monkeypatch.setattr(operations, "launch", launch)
    assert find().startswith("a convolution on /device:CPU:0 is off by up to ")


@pytest.mark.usefixtures("gpu")
def test_kernels_that_cannot_be_compiled(monkeypatch):
    def fail():
        raise tf.errors.InternalError(None, None, "no ptxas")

    monkeypatch.setattr(availability, "_compiled_example", fail)
    expected = "XLA cannot compile them for /device:CPU:0 (InternalError)"
    assert find() == expected


def test_xla_for_a_cpu_cannot_compile_them(monkeypatch):
    """What happens on a device without Triton, with XLA's own error."""
    device = tf.config.list_logical_devices("CPU")[0]
    monkeypatch.setattr(
        availability.tf.config, "list_logical_devices", lambda kind: [device]
    )
    assert find().startswith(f"XLA cannot compile them for {device.name} (")


def test_is_found_once(monkeypatch):
    availability.reason_unavailable()
    monkeypatch.setattr(availability, "_compiled_example", None)
    assert availability.reason_unavailable() == "there is no GPU"
