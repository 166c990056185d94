"""Whether modalities may be resampled, a setting of every command that reads scans."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ResampleModalities = Annotated[
    bool,
    Field(
        description="Resample modalities in files of their own to the grid of the "
        "first, where they lie on another. What survey is told holds in all later "
        "stages.",
    ),
]
