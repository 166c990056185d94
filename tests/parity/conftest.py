import pathlib

import pytest


@pytest.fixture(scope="session")
def golden_dir():
    """The folder of the published network's numbers."""
    return pathlib.Path(__file__).parent / "golden"
