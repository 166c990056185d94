"""Resampling of modalities, a setting of each command that reads scans."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ResampleModalities = Annotated[
    bool,
    Field(
        description="Resample modalities stored in separate files to the grid of the "
        "first one if their grids differ. If set for survey, it applies to all later "
        "stages.",
    ),
]
