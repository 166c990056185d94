"""Flags of the sliding window, for the commands that predict."""

from __future__ import annotations

from typing import Any

from absl import flags

_OVERLAP = flags.DEFINE_float(
    "overlap",
    0.5,
    "Share of a window that the next one covers again.",
    lower_bound=0,
    upper_bound=0.95,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 1, "Windows that the network sees at once.", lower_bound=1
)
_SKIP_EMPTY = flags.DEFINE_bool(
    "skip_empty",
    True,
    "Take windows for background in which every voxel of the scan is exactly 0, and do "
    "not ask the network.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "What the network computes in.",
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "newest",
    "Of those that training kept: newest (that is whole), best (by the Dice of the "
    "validations or, without them, by the loss's moving average) or step-N.",
)


def settings() -> dict[str, Any]:
    """Options of `Predictor.from_model_dir`."""
    return {
        "overlap": _OVERLAP.value,
        "batch_size": _BATCH_SIZE.value,
        "skip_empty": _SKIP_EMPTY.value,
        "precision": _PRECISION.value,
        "checkpoint": _CHECKPOINT.value,
    }
