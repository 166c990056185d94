"""Precision of sums."""

from __future__ import annotations

import tensorflow as tf


def accumulation_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype for sums over voxels: float64 for float64, else float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32
