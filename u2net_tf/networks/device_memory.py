"""Reports that the memory of a device does not suffice."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from u2net_tf.errors import StoppedError
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.wording import quantity

# CUDA and XLA also report it as other errors than `ResourceExhaustedError`. Names of
# domains and nodes may contain "oom".
_EXHAUSTED = re.compile(r"\bOOM\b|(?i:out[ _]of[ _]memory)")
# Names of nodes and functions before and after the text.
_NODE = re.compile(r"\{\{\S*node .*?\}\}|\[Op:.*?\](?: name:.*)?")


@contextlib.contextmanager
def reporting_exhausted(describe: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Reports in one line if the memory of a device does not suffice.

    Args:
      describe: returns what the memory was needed for, such as "step 7: expected
        memory for a batch", and a hint.

    Raises:
      StoppedError: in place of TensorFlow's or Python's error.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        text = _text_if_exhausted(error)
        if text is None:
            raise
        lines = [line for line in _NODE.sub("", text).splitlines() if line.strip()]
        first = lines[0] if lines else type(error).__name__
        reason = next((line for line in lines if _EXHAUSTED.search(line)), first)
        reason = f"{reason:.300}".strip(" .")
        expected, hint = describe()
        raise StoppedError(f"{expected}. Received: {reason}. {hint}") from error


def _text_if_exhausted(error: tf.errors.OpError | MemoryError) -> str | None:
    """Returns the text of an error of lacking memory; None for other errors."""
    if isinstance(error, MemoryError):
        return str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return error.message
    return error.message if _EXHAUSTED.search(error.message) else None


def describe_windows(
    windows: np.ndarray, *, is_precision_fixed: bool
) -> tuple[str, str]:
    """Describes a call of the network for `reporting_exhausted`.

    Args:
      windows: (N, z, y, x, channels), the windows to predict.
      is_precision_fixed: whether the precision is half already or cannot be set, as in
        an exported network and in the validation of a run.
    """
    number, *size, _ = windows.shape
    extent = " × ".join(map(str, size))
    expected = (
        f"expected enough memory for {quantity(number, 'window')} of {extent} voxels"
    )
    if number > 1:
        return expected, "Set a smaller `batch_size`"
    if is_precision_fixed:
        return expected, "Use a device with more memory"
    return expected, "Set half `precision`, or use a device with more memory"


def hint_for_step(network: DomainModel, batch_size: int) -> str:
    """Returns the hint for a training step: the settings that still save memory.

    Args:
      network: the trained network.
      batch_size: number of patches per device.
    """
    smaller = ["a smaller `batch_size`"] if batch_size > 1 else []
    smaller.append("smaller patches")
    if network.compute_dtype == "float32":
        smaller.append("half `precision`")
    *others, last = smaller
    listed = f"{', '.join(others)} or {last}" if others else last
    if network.gradient_checkpointing == "none":
        return (
            f"Set `gradient_checkpointing` to blocks, or begin a new run with {listed}"
        )
    return f"Begin a new run with {listed}"


def describe_variables() -> tuple[str, str]:
    """Describes the creation of variables for `reporting_exhausted`."""
    return (
        "expected enough memory for the variables of the network and its optimizers",
        "Close other programs that use the device, choose one with more memory, or a "
        "smaller network",
    )
