"""The limit to memory, a setting of every command that reads scans."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MaxMemory = Annotated[
    float | None,
    Field(
        gt=0,
        description="Scans that need more memory, GB, as they are or resampled, are "
        "refused before any is allocated; half of the machine's if not given. Each "
        "worker may use as much.",
    ),
]
