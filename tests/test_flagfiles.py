"""The flagfiles of training: their settings, and runs with them."""

import pathlib

import pytest
from absl import flags
from command_session import session

from u2net_tf import command_flags
from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.training import TrainConfig
from u2net_tf.models.loading import load_spec

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = "u2net_tf/flagfiles"
NAMES = ("universal", "shared", "upstream", "unet_sharp")
# Two steps of a tiny network on one domain.
SMALL = (
    "--domains=Task91_One",
    "--base_channels=2",
    "--pools=1,1,1",
    "--patch_size=8,8,8",
    "--steps_per_epoch=2",
    "--max_epochs=1",
    "--validate_every_epochs=0",
    "--distribution=none",
)
# Settings of the published code: first those that differ from the paper, then others.
PUBLISHED = (
    ("weight_decay", 5e-4),
    ("detach_focal_factor", True),
    ("steps_per_epoch", 300),
    ("max_epochs", 300),
    ("loss_window_epochs", 20),
    ("patience_epochs", 1),
    ("plateau_min_delta", 1e-4),
    ("plateau_factor", 0.5),
    ("learning_rate", 3e-4),
    ("min_learning_rate", 1e-8),
    ("adapter", "separable"),
    ("base_channels", 16),
    ("pools", (5, 5, 5)),
    ("patch_size", (128, 128, 128)),
    ("resize_method", "cubic"),
    ("batch_size", 2),
)


def lines_of(name):
    """Flags in a flagfile: name -> value, "" for a flag without one."""
    text = (ROOT / FOLDER / f"{name}.flags").read_text()
    given = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        flag.removeprefix("--"): value
        for flag, _, value in (line.partition("=") for line in given)
    }


def read_settings(name, *others):
    """The settings of `u2net_tf.train` with a flagfile and other flags."""
    values = flags.FlagValues()
    command_flags.define(TrainConfig, values=values)
    lines = [f"--flagfile={ROOT / FOLDER / name}.flags", "--data_dir=a"]
    values(["train", *lines, "--model_dir=b", *others])
    return command_flags.read(TrainConfig, values=values)


@pytest.fixture(scope="module")
def settings():
    """Settings of each flagfile."""
    return {name: read_settings(name).flat() for name in NAMES}


@pytest.mark.parametrize(("flag", "value"), PUBLISHED)
def test_upstream_has_every_setting_of_the_published_code(settings, flag, value):
    assert flag in lines_of("upstream")
    assert settings["upstream"][flag] == value


def test_upstream_leaves_the_decoder_to_the_adapter(settings):
    assert settings["upstream"]["last_decoder_kernel"] is None


@pytest.mark.parametrize("name", [*NAMES, "independent", "adapt"])
def test_patches_are_augmented_as_in_the_paper(name):
    probabilities = {"elastic": "0.3", "rotation": "0.3", "scaling": "0.5"}
    lines = lines_of(name)
    for part, probability in probabilities.items():
        assert lines.pop(f"{part}_probability") == probability
    # The other defaults are the paper's; transforms that it does not use are off.
    assert not lines.keys() & AugmentationConfig.settings().keys()


def test_the_demo_is_not_augmented():
    assert not [flag for flag in lines_of("demo") if flag.endswith("_probability")]


def test_shared_is_universal_except_for_its_convolutions(settings):
    network = {"adapter": "none", "base_channels": 16, "last_decoder_kernel": 3}
    assert settings["shared"].items() >= network.items()
    shared, universal = lines_of("shared"), lines_of("universal")
    assert shared.pop("last_decoder_kernel") == "3"
    assert shared == {**universal, "adapter": "none"}


def test_unet_sharp_is_universal_except_for_its_architecture():
    network = {"architecture": "unet_sharp", "depth": "4", "pools": "4,4,4"}
    assert lines_of("unet_sharp") == {**lines_of("universal"), **network}


@pytest.mark.parametrize(
    "others",
    [
        ["--adapter=none"],
        [
            "--independent",
            "--adapter=none",
            "--patch_size=",
            "--pools=",
            "--batch_size=0",
        ],
    ],
)
def test_unet_sharp_has_every_mode(others):
    """The flags that its header comment lists for each mode are valid."""
    text = (ROOT / FOLDER / "unet_sharp.flags").read_text().replace("\n# ", " ")
    assert " ".join(others) in text
    config = read_settings("unet_sharp", *others)
    assert config.network.options()["depth"] == 4
    assert config.network.adapter == "none"
    if config.independent:
        assert (config.network.pools, config.data.patch_size) == (None, None)


# `test_real_scans.py` trains with universal.flags, and is not slow.
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_trains(tiny_data, tmp_path, name):
    line = (
        f"--flagfile={FOLDER}/{name}.flags",
        f"--data_dir={tiny_data.data_dir}",
        f"--model_dir={tmp_path}",
        *SMALL,
    )
    result = session("u2net_tf.train", {name: line}, execution="plain")[name]
    assert result["status"] == 0
    assert result["stdout"].startswith(f"{tmp_path}: 2 steps in 1 epoch ")
    spec = load_spec(tmp_path)
    given = lines_of(name)
    assert spec.adapter == given["adapter"]
    kernel = {"full": "3", None: None}[spec.second_up_conv]
    assert kernel == given.get("last_decoder_kernel")
    assert spec.resize_method == given.get("resize_method", "linear")
