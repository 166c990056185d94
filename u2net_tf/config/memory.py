"""The memory limit, a setting of the data preparation commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MaxMemory = Annotated[
    float | None,
    Field(
        gt=0,
        description="Memory limit per scan, GB; half of the machine's memory if not "
        "given. A scan that needs more, before or after resampling, is refused before "
        "anything is allocated. With several worker processes, each may use this much.",
    ),
]
