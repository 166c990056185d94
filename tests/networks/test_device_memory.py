"""Errors of devices whose memory does not suffice."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.errors import StoppedError
from u2net_tf.networks.device_memory import (
    describe_windows,
    hint_for_step,
    reporting_exhausted,
)

# Bytes of float32 beyond the addresses of any machine.
TOO_MANY = 1 << 60


def describe():
    return "step 7: expected enough memory", "Use less"


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_allocation_that_fails(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def allocate():
        return tf.reduce_sum(tf.random.uniform([TOO_MANY]))

    with pytest.raises(StoppedError) as caught, reporting_exhausted(describe):
        allocate()
    words = (
        r"step 7: expected enough memory\. Received: .*(OOM|Out of memory).*\. Use less"
    )
    assert re.fullmatch(words, str(caught.value))
    assert "__inference" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("InternalError", "{{node x}} Failed to load CUBIN: CUDA_ERROR_OUT_OF_MEMORY"),
        ("UnknownError", "{{node x}} Out of memory.\nHint: more"),
        ("ResourceExhaustedError", "{{node x}} Too much"),
        ("ResourceExhaustedError", "{{node x}} Too much. [Op:AddV2] name: "),
    ],
)
def test_errors_of_cuda_and_xla(kind, text):
    error = getattr(tf.errors, kind)(None, None, text)
    expected = text.removeprefix("{{node x}} ").partition(".")[0]
    with (
        pytest.raises(StoppedError, match=rf"Received: {expected}\. Use less$"),
        reporting_exhausted(describe),
    ):
        raise error


def test_long_errors_are_shortened():
    """XLA lists the largest allocations."""
    with pytest.raises(StoppedError) as caught, reporting_exhausted(describe):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM" + 999 * "m")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["std::bad_alloc", ""])
def test_errors_of_python(text):
    words = f"memory. Received: {text or 'MemoryError'}. Use less$"
    with pytest.raises(StoppedError, match=words), reporting_exhausted(describe):
        raise MemoryError(text)


def test_other_errors_stay_as_they_are():
    texts = ("no memory", "no room for the shape", "ZOOM: shapes differ")
    errors = [tf.errors.InternalError(None, None, text) for text in texts]
    for error in (*errors, KeyError("x")):
        with pytest.raises(type(error)), reporting_exhausted(describe):
            raise error


def test_windows():
    settings = {"is_precision_fixed": False}
    expected, hint = describe_windows(np.zeros((2, 8, 16, 4, 3)), **settings)
    assert expected == "expected enough memory for 2 windows of 8 × 16 × 4 voxels"
    assert "`batch_size`" in hint
    one = np.zeros((1, 8, 16, 4, 3))
    expected, hint = describe_windows(one, **settings)
    assert "1 window of" in expected
    assert hint == "Set half `precision`, or use a device with more memory"
    _, hint = describe_windows(one, is_precision_fixed=True)
    assert hint == "Use a device with more memory"


@pytest.mark.parametrize(
    ("checkpointing", "dtype", "batch_size", "hint"),
    [
        (
            "none",
            "float32",
            2,
            "Set `gradient_checkpointing` to blocks, or begin a new run with a smaller "
            "`batch_size`, smaller patches or half `precision`",
        ),
        (
            "none",
            "bfloat16",
            1,
            "Set `gradient_checkpointing` to blocks, or begin a new run with smaller "
            "patches",
        ),
        (
            "blocks",
            "float32",
            1,
            "Begin a new run with smaller patches or half `precision`",
        ),
        ("blocks", "float16", 1, "Begin a new run with smaller patches"),
    ],
)
def test_the_hint_for_a_step_names_what_still_helps(
    checkpointing, dtype, batch_size, hint
):
    network = types.SimpleNamespace(
        gradient_checkpointing=checkpointing, compute_dtype=dtype
    )
    assert hint_for_step(network, batch_size) == hint
