"""Custom gradients, and how to omit them from a graph."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_disabled = contextvars.ContextVar("custom_gradients_disabled", default=False)


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Omits custom gradients from operations that are traced in this context.

    For exported graphs: TensorFlow would save each gradient with the graph, or warn
    when the graph is loaded that it is missing. Applies to the current thread.
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def custom_gradient(function: Callable[..., tuple]) -> Callable[..., Any]:
    """Applies `tf.custom_gradient`, except within `without_gradients`."""
    if not _disabled.get():
        return tf.custom_gradient(function)
    return lambda *tensors: function(*tensors)[0]
