"""Flags of older versions that flagfiles and scripts may still contain."""

from __future__ import annotations

from collections.abc import Callable

_KERNELS = {"full": "3", "pointwise": "1"}
# Flag of release 0.1.0 -> its new name, and a function that converts its value.
OLD_FLAGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "certain_share": ("oversample_foreground_fraction", str),
    "eval_every": ("validate_every_epochs", str),
    # The old factor divided the learning rate; the new one multiplies it.
    "learning_rate_factor": ("plateau_factor", lambda text: repr(1 / float(text))),
    "loss_decay": ("loss_ema_decay", str),
    "min_fall": ("plateau_min_delta", str),
    "recompute": ("gradient_checkpointing", str),
    "second_up_conv": ("last_decoder_kernel", lambda text: _KERNELS.get(text, text)),
}
