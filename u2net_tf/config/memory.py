"""Memory limits, which are settings of several commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

# Of a scan.
MaxMemory = Annotated[
    float | None,
    Field(
        gt=0,
        description="Memory limit per scan, GB; half of the machine's memory if not "
        "given. A scan that needs more after resampling cannot be used.",
    ),
]
# Of all worker processes.
MaxWorkerMemory = Annotated[
    float | None,
    Field(
        gt=0,
        description="Memory limit of all worker processes together, GB; half of the "
        "machine's memory if not given. Fewer of them run if their cases need more; a "
        "scan or label map that needs more alone is refused.",
    ),
]
