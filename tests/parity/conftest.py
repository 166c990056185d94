import pathlib

import pytest

GOLDEN = pathlib.Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden_dir():
    """The folder of the published network's numbers."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden files: {GOLDEN} does not exist")
    return GOLDEN
