"""Commands that moved into the package can still be started by their old names."""

import importlib

import pytest
from command_server import CommandServer

# Old module -> new module.
MOVED = {
    **{
        f"tools.{name}": f"u2net_tf.{name}"
        for name in (
            "draw_overlays",
            "plot_training",
            "port_torch_weights",
            "show_augmentations",
        )
    },
    "u2net_tf.networks.complexity": "u2net_tf.complexity",
}
# Each command has one of these flags.
FLAGS = ("--output", "--weights", "--last_decoder_kernel")


@pytest.fixture(scope="module")
def server():
    with CommandServer() as server:
        yield server


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_has_the_flags_and_the_help_of_the_command(server, old, new):
    helps = [server.run(module, "--help") for module in (old, new)]
    # All lines but the path of the module, which precedes its flags.
    shown = [
        [line for line in help_.stdout.splitlines() if line.startswith("  ")]
        for help_ in helps
    ]
    assert shown[0] == shown[1]
    assert any(flag in line for line in shown[0] for flag in FLAGS)
    assert f"python -m {new}" in helps[0].stdout


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_runs_the_command(old, new):
    shim, command = (importlib.import_module(name) for name in (old, new))
    assert (shim.run, shim.main) == (command.run, command.main)
