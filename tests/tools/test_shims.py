"""Commands that moved into the package are still started by their old names."""

import importlib

import pytest
from command_server import CommandServer

NAMES = (
    "draw_overlays",
    "plot_training",
    "port_torch_weights",
    "show_augmentations",
)


@pytest.fixture(scope="module")
def server():
    with CommandServer() as server:
        yield server


@pytest.mark.parametrize("name", NAMES)
def test_has_the_flags_and_the_help_of_the_command(server, name):
    old, new = (server.run(f"{p}.{name}", "--help") for p in ("tools", "u2net_tf"))
    # But for the path of what was started, which heads the flags.
    shown = [
        [line for line in help_.stdout.splitlines() if line.startswith("  ")]
        for help_ in (old, new)
    ]
    assert shown[0] == shown[1]
    assert any("--output" in line or "--weights" in line for line in shown[0])
    assert f"python -m u2net_tf.{name}" in old.stdout


@pytest.mark.parametrize("name", NAMES)
def test_runs_the_command(name):
    shim = importlib.import_module(f"tools.{name}")
    command = importlib.import_module(f"u2net_tf.{name}")
    assert (shim.run, shim.main) == (command.run, command.main)
