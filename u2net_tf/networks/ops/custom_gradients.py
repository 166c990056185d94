"""Gradients that are written out, and how to leave them out of a graph."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_left_out = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Within this context, what is traced has no gradients of our own.

    For graphs that are exported: TensorFlow would save each gradient with them, or warn
    of its absence when the graph is loaded. It applies in the current thread.
    """
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def custom_gradient(function: Callable[..., tuple]) -> Callable[..., Any]:
    """As `tf.custom_gradient`, which it is outside of `without_gradients`."""
    if not _left_out.get():
        return tf.custom_gradient(function)
    return lambda *tensors: function(*tensors)[0]
