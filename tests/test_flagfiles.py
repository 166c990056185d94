"""The flagfiles of training: what they say, and that they train."""

import dataclasses
import pathlib

import pytest
from command_session import session
from command_settings import dig, settings_of

from u2net_tf.input.augment.settings import Augmentation
from u2net_tf.models.checkpoints import load_spec

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = "u2net_tf/flagfiles"
NAMES = ("universal", "shared", "upstream")
# Two steps of a tiny network, of one domain.
SMALL = (
    "--domains=Task91_One",
    "--base_channels=2",
    "--pools=1,1,1",
    "--patch_size=8,8,8",
    "--steps_per_epoch=2",
    "--max_epochs=1",
    "--eval_every=0",
    "--distribution=none",
)
# Of the published code, where the paper says otherwise, and then where it does not.
PUBLISHED = (
    ("weight_decay", ("optimizer", "weight_decay"), 5e-4),
    ("detach_focal_factor", ("optimizer", "detach_focal_factor"), True),
    ("steps_per_epoch", ("settings", "steps_per_epoch"), 300),
    ("max_epochs", ("settings", "max_epochs"), 300),
    ("loss_window_epochs", ("rule", "window_epochs"), 20),
    ("patience_epochs", ("rule", "patience_epochs"), 1),
    ("min_fall", ("rule", "min_fall"), 1e-4),
    ("learning_rate_factor", ("rule", "factor"), 2),
    ("learning_rate", ("rule", "learning_rate"), 3e-4),
    ("min_learning_rate", ("rule", "min_learning_rate"), 1e-8),
    ("adapter", ("network", "adapter"), "separable"),
    ("base_channels", ("network", "base_channels"), 16),
    ("pools", ("pools",), [5, 5, 5]),
    ("patch_size", ("inputs", "patch_size"), [128, 128, 128]),
    ("resize_method", ("inputs", "resize_method"), "cubic"),
    ("batch_size", ("inputs", "batch_size"), 2),
)


def lines_of(name):
    """Flags that a flagfile gives: name -> value, "" where it has none."""
    text = (ROOT / FOLDER / f"{name}.flags").read_text()
    given = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        flag.removeprefix("--"): value
        for flag, _, value in (line.partition("=") for line in given)
    }


@pytest.fixture(scope="module")
def settings():
    """The settings that the command derives from each flagfile."""
    lines = [[f"--flagfile={ROOT / FOLDER / name}.flags"] for name in NAMES]
    found = settings_of("u2net_tf.train", lines)
    return dict(zip(NAMES, found, strict=True))


@pytest.mark.parametrize(("flag", "path", "value"), PUBLISHED)
def test_upstream_has_every_setting_of_the_published_code(settings, flag, path, value):
    assert flag in lines_of("upstream")
    assert dig(settings["upstream"], path) == value


def test_upstream_leaves_the_decoder_to_the_adapter(settings):
    assert settings["upstream"]["network"]["second_up_conv"] is None


@pytest.mark.parametrize("name", [*NAMES, "independent", "adapt"])
def test_patches_are_augmented_as_in_the_paper(name):
    probabilities = {"elastic": "0.3", "rotation": "0.3", "scaling": "0.5"}
    lines = lines_of(name)
    for part, probability in probabilities.items():
        assert lines.pop(f"{part}_probability") == probability
    # The rest is the paper's by default, and what is not the paper's is off.
    assert not lines.keys() & {field.name for field in dataclasses.fields(Augmentation)}


def test_the_demo_is_not_augmented():
    assert not [flag for flag in lines_of("demo") if flag.endswith("_probability")]


def test_shared_is_universal_but_for_its_convolutions(settings):
    network = {"adapter": "none", "base_channels": 16, "second_up_conv": "full"}
    assert settings["shared"]["network"] == network
    shared, universal = lines_of("shared"), lines_of("universal")
    assert shared.pop("second_up_conv") == "full"
    assert shared == {**universal, "adapter": "none"}


# `test_real_scans.py` trains with universal.flags, too.
@pytest.mark.parametrize(
    "name",
    [
        "upstream",
        *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:2]),
    ],
)
def test_trains(tiny_data, tmp_path, name):
    line = (
        f"--flagfile={FOLDER}/{name}.flags",
        f"--data_dir={tiny_data.data_dir}",
        f"--model_dir={tmp_path}",
        *SMALL,
    )
    result = session("u2net_tf.train", {name: line}, route="plain")[name]
    assert result["status"] == 0
    assert result["stdout"].startswith(f"{tmp_path}: 2 steps in 1 epochs")
    spec = load_spec(tmp_path)
    given = lines_of(name)
    assert spec.adapter == given["adapter"]
    assert spec.second_up_conv == given.get("second_up_conv")
    assert spec.resize_method == given.get("resize_method", "linear")
