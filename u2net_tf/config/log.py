"""Settings of what a command logs while it works."""

from __future__ import annotations

from pydantic import Field

from u2net_tf.config.base import Config


class LogConfig(Config):
    """What a command logs while it works."""

    log_every_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds between two lines of progress, where standard error is no "
        "terminal and shows no bar.",
    )
