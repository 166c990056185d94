import pytest
from command_session import tensorflow_server
from table import TABLE

# Layers, a unit and a network; the rest is slow.
QUICK = ["DomainConv3D", "SeparableUnit", "DownSample", "U2Net, independent"]


@pytest.mark.parametrize(
    ("implementation", "names"),
    [
        pytest.param("plain", QUICK, id="plain"),
        # XLA takes seconds for each row and device.
        *(
            pytest.param("xla", [name], id=name, marks=pytest.mark.slow)
            for name in TABLE
        ),
    ],
)
def test_rows_on_two_devices_equal_one(implementation, names):
    """In its own process: devices must be configured before TensorFlow uses them."""
    done = tensorflow_server().run("conformance.two_devices", implementation, *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == names
