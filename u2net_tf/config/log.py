"""Settings of progress logging."""

from __future__ import annotations

from pydantic import Field

from u2net_tf.config.base import Config


class LogConfig(Config):
    """Progress logging."""

    log_every_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds between progress messages, which replace the progress "
        "bar if standard error is not a terminal.",
    )
