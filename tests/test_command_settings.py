"""Every flag of `train` and `adapt` has an effect and is recorded in flags.txt."""

import pytest
from command_settings import dig, parse_flags, settings_of

# Flag, a value other than its default, where it arrives in the settings, and as what.
COMMON = (
    ("data_dir", "here", ("inputs", "data_dir"), "here"),
    ("model_dir", "there", ("settings", "model_dir"), "there"),
    ("precision", "mixed_float16", ("computing", "dtype"), "mixed_float16"),
    ("recompute", "blocks", ("computing", "recompute"), "blocks"),
    ("batch_size", "5", ("inputs", "batch_size"), 5),
    ("certain_share", "0.5", ("inputs", "sampling", "certain_share"), 0.5),
    ("smallest_share", "0.1", ("inputs", "sampling", "smallest_share"), 0.1),
    ("foreground_share", "0.2", ("inputs", "sampling", "foreground_share"), 0.2),
    ("mirror_probability", "1", ("inputs", "sampling", "mirror_probability"), 1),
    ("input_memory_mb", "7", ("inputs", "input_memory_mb"), 7),
    ("patches_per_volume", "6", ("inputs", "patches_per_volume"), 6),
    ("num_parallel_calls", "3", ("inputs", "num_parallel_calls"), 3),
    ("seed", "11", ("inputs", "seed"), 11),
    ("learning_rate", "0.1", ("rule", "learning_rate"), 0.1),
    ("patience_epochs", "4", ("rule", "patience_epochs"), 4),
    ("min_fall", "0.2", ("rule", "min_fall"), 0.2),
    ("learning_rate_factor", "3", ("rule", "factor"), 3),
    ("min_learning_rate", "1e-5", ("rule", "min_learning_rate"), 1e-5),
    ("loss_decay", "0.6", ("rule", "decay"), 0.6),
    ("loss_window_epochs", "20", ("rule", "window_epochs"), 20),
    ("weight_decay", "0.3", ("optimizer", "weight_decay"), 0.3),
    ("detach_focal_factor", "true", ("optimizer", "detach_focal_factor"), True),
    ("steps_per_epoch", "9", ("settings", "steps_per_epoch"), 9),
    ("max_epochs", "8", ("settings", "max_epochs"), 8),
    ("eval_every", "6", ("settings", "eval_every"), 6),
    ("eval_cases", "4", ("settings", "eval_cases"), 4),
    ("keep", "2", ("settings", "keep"), 2),
    ("distribution", "mirrored", ("distribution",), "mirrored"),
    *(
        (name, value, ("inputs", "augmentation", name), expected)
        for name, value, expected in (
            ("elastic_probability", "0.1", 0.1),
            ("elastic_alpha", "1,2", [1, 2]),
            ("elastic_sigma_mm", "3.5,4", [3.5, 4]),
            ("rotation_probability", "0.2", 0.2),
            ("rotation_degrees", "-9,8", [-9, 8]),
            ("scaling_probability", "0.3", 0.3),
            ("scale", "0.9,1.5", [0.9, 1.5]),
            ("noise_probability", "0.4", 0.4),
            ("noise_variance", "0,0.2", [0, 0.2]),
            ("blur_probability", "0.5", 0.5),
            ("blur_sigma_voxels", "0.4,0.6", [0.4, 0.6]),
            ("brightness_probability", "0.6", 0.6),
            ("brightness", "0.7,0.8", [0.7, 0.8]),
            ("contrast_probability", "0.7", 0.7),
            ("contrast", "0.6,0.7", [0.6, 0.7]),
            ("low_resolution_probability", "0.8", 0.8),
            ("low_resolution_zoom", "0.3,0.4", [0.3, 0.4]),
            ("gamma_probability", "0.9", 0.9),
            ("gamma_inverted_probability", "1", 1),
            ("gamma", "1.1,1.2", [1.1, 1.2]),
        )
    ),
)
FLAGS = {
    "u2net_tf.train": (
        *COMMON,
        ("domains", "b,a", ("domains",), ["b", "a"]),
        ("adapter", "series", ("network", "adapter"), "series"),
        ("base_channels", "3", ("network", "base_channels"), 3),
        ("pools", "3,2,0", ("pools",), [3, 2, 0]),
        ("second_up_conv", "full", ("network", "second_up_conv"), "full"),
        ("independent", "true", ("independent",), True),
        ("patch_size", "16,8,24", ("inputs", "patch_size"), [16, 8, 24]),
        ("resize_method", "cubic", ("inputs", "resize_method"), "cubic"),
    ),
    "u2net_tf.adapt": (
        *COMMON,
        ("from", "a", ("parent_dir",), "a"),
        ("domain", "b", ("domain",), "b"),
        ("init", "c", ("init",), "c"),
    ),
}


@pytest.fixture(scope="module", params=FLAGS)
def command(request):
    return request.param


@pytest.fixture(scope="module")
def command_line(command):
    """Gives every flag a value other than its default."""
    return [f"--{name}={value}" for name, value, *_ in FLAGS[command]]


@pytest.fixture(scope="module")
def settings(command, command_line):
    """Settings without flags, with each flag alone, and with all of them."""
    alone = [[argument] for argument in command_line]
    return settings_of(command, [[], *alone, command_line])


@pytest.fixture(scope="module")
def values(command, command_line):
    """Values of all flags where every one of them is given."""
    return {
        name: value
        for name, (value, _) in parse_flags(command, *command_line)[0].items()
    }


def test_every_flag_is_in_the_table_and_in_the_help(command):
    defined, shown = parse_flags(command)
    assert sorted(defined) == sorted(name for name, *_ in FLAGS[command])
    assert sorted(defined) == sorted(shown)


def test_each_flag_sets_its_setting(command, settings):
    default, *alone, together = settings
    for (name, _, path, expected), changed in zip(FLAGS[command], alone, strict=True):
        assert dig(changed, path) == expected, name
        assert dig(together, path) == expected, name
        assert dig(default, path) != expected, f"{name}: this is the default"


def test_flags_text_has_each_flag_once(command, settings):
    # A flag that is false is written as --noflag; none of these is.
    lines = settings[-1]["flags_text"].splitlines()
    names = [line.removeprefix("--").partition("=")[0] for line in lines]
    assert sorted(names) == sorted(parse_flags(command)[0])


def test_flags_text_restores_every_flag(command, settings, values, tmp_path):
    path = tmp_path / "flags.txt"
    path.write_text(settings[-1]["flags_text"])
    restored, _ = parse_flags(command, f"--flagfile={path}")
    for name, (value, default) in restored.items():
        assert value != default, f"{name}: not restored"
        assert value == values[name], name
    assert restored.keys() == values.keys()
