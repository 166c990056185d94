"""The limit to memory, a setting of the commands that prepare data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MaxMemory = Annotated[
    float | None,
    Field(
        gt=0,
        description="Limit to the memory of one scan, GB: one that needs more, as it "
        "is or resampled, is refused before any is allocated. Half of the "
        "machine's if not given. Several workers hold several scans at a time.",
    ),
]
