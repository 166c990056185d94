"""Every flag of a command has an effect and is recorded in flags.txt."""

import importlib
import re

import pydantic
import pytest
from absl import flags

from data_prep.config import ConvertConfig, PlanConfig, SurveyConfig, VerifyConfig
from u2net_tf import command_flags
from u2net_tf.config import flagfile
from u2net_tf.config.adapter_files import (
    AdapterAddConfig,
    AdapterExportConfig,
    AdapterListConfig,
    AdapterRemoveConfig,
)
from u2net_tf.config.base import Config, to_input_error
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.config.evaluation import CompareConfig, EvaluateConfig, ScoreConfig
from u2net_tf.config.exporting import ExportConfig
from u2net_tf.config.inference import ComposeConfig, PredictConfig
from u2net_tf.config.network import ComplexityConfig
from u2net_tf.config.packing import PackConfig
from u2net_tf.config.published_weights import PortConfig
from u2net_tf.config.serving import ServeConfig
from u2net_tf.config.training import AdaptConfig, RunConfig, TrainConfig
from u2net_tf.config.visualization import (
    ContactSheetConfig,
    CurvesConfig,
    OverlaysConfig,
)
from u2net_tf.errors import InputError
from u2net_tf.old_flags import OLD_FLAGS

# Flag, a value other than its default, and the resulting setting.
AUGMENTATION = (
    ("elastic_probability", "0.1", 0.1),
    ("elastic_alpha", "1,2", (1, 2)),
    ("elastic_sigma_mm", "3.5,4", (3.5, 4)),
    ("rotation_probability", "0.2", 0.2),
    ("rotation_degrees", "-9,8", (-9, 8)),
    ("scaling_probability", "0.3", 0.3),
    ("scale", "0.9,1.5", (0.9, 1.5)),
    ("noise_probability", "0.4", 0.4),
    ("noise_variance", "0,0.2", (0, 0.2)),
    ("blur_probability", "0.5", 0.5),
    ("blur_sigma_voxels", "0.4,0.6", (0.4, 0.6)),
    ("brightness_probability", "0.6", 0.6),
    ("brightness", "0.7,0.8", (0.7, 0.8)),
    ("contrast_probability", "0.7", 0.7),
    ("contrast", "0.6,0.7", (0.6, 0.7)),
    ("low_resolution_probability", "0.8", 0.8),
    ("low_resolution_zoom", "0.3,0.4", (0.3, 0.4)),
    ("gamma_probability", "0.9", 0.9),
    ("gamma_inverted_probability", "1", 1),
    ("gamma", "1.1,1.2", (1.1, 1.2)),
)
COMMON = (
    ("data_dir", "here", "here"),
    ("model_dir", "there", "there"),
    ("fold", "1", 1),
    ("precision", "mixed_float16", "mixed_float16"),
    ("gradient_checkpointing", "blocks", "blocks"),
    ("batch_size", "5", 5),
    ("oversample_foreground_fraction", "0.5", 0.5),
    ("smallest_share", "0.1", 0.1),
    ("foreground_share", "0.2", 0.2),
    ("mirror_probability", "1", 1),
    ("input_memory_mb", "7", 7),
    ("patches_per_volume", "6", 6),
    ("num_parallel_calls", "3", 3),
    ("seed", "11", 11),
    ("learning_rate", "0.1", 0.1),
    ("patience_epochs", "4", 4),
    ("plateau_min_delta", "0.2", 0.2),
    ("plateau_factor", "0.25", 0.25),
    ("min_learning_rate", "1e-5", 1e-5),
    ("loss_ema_decay", "0.6", 0.6),
    ("loss_window_epochs", "20", 20),
    ("learning_rate_schedule", "polynomial", "polynomial"),
    ("polynomial_power", "0.5", 0.5),
    ("weight_decay", "0.3", 0.3),
    ("weight_ema_decay", "0.75", 0.75),
    ("detach_focal_factor", "true", True),
    ("region_loss_weight", "0.5", 0.5),
    ("top_head_weights", "0,0.5,2", (0.0, 0.5, 2.0)),
    ("deep_head_weights", "1,3", (1.0, 3.0)),
    ("gate_loss_weight", "0.25", 0.25),
    ("steps_per_epoch", "9", 9),
    ("max_epochs", "8", 8),
    ("max_minutes", "2.5", 2.5),
    ("log_every_seconds", "4.5", 4.5),
    ("validate_every_epochs", "6", 6),
    ("eval_cases", "4", 4),
    ("keep", "2", 2),
    ("distribution", "mirrored", "mirrored"),
    ("jit_compile", "true", "true"),
    ("triton_kernels", "false", "false"),
    *AUGMENTATION,
)
NETWORK = (
    ("adapter", "series", "series"),
    ("base_channels", "3", 3),
    ("pools", "3,2,0", (3, 2, 0)),
    ("last_decoder_kernel", "1", 1),
)
SHARP = (
    ("architecture", "unet_sharp", "unet_sharp"),
    ("depth", "3", 3),
    ("gates", "both", "both"),
)
WINDOWS = (
    ("overlap", "0.25", 0.25),
    ("batch_size", "3", 3),
    ("skip_empty", "false", False),
    ("test_time_mirroring", "true", True),
    ("num_workers", "2", 2),
    ("on_bad_case", "fail", "fail"),
    ("resample_modalities", "true", True),
    ("max_memory_gb", "7.5", 7.5),
    ("precision", "mixed_bfloat16", "mixed_bfloat16"),
    ("checkpoint", "best", "best"),
    ("prune_to", "2", 2),
    ("gate_threshold", "0.25", 0.25),
    ("keep_foreground_components", "2", 2),
    ("keep_components", "3", 3),
    ("log_every_seconds", "4.5", 4.5),
)
FLAGS = {
    TrainConfig: (
        *COMMON,
        ("domains", "b,a", ("b", "a")),
        *NETWORK,
        *SHARP,
        ("align_corners", "true", True),
        ("init_from", "x", "x"),
        ("independent", "true", True),
        ("patch_size", "16,8,24", (16, 8, 24)),
        ("resize_method", "cubic", "cubic"),
    ),
    EvaluateConfig: (
        *WINDOWS,
        ("model_dir", "a", ("a",)),
        ("output_dir", "b", "b"),
        ("raw_dir", "c", "c"),
        ("domains", "b,a", ("b", "a")),
        ("split", "validation", "validation"),
        ("plan", "d", "d"),
        ("fold", "1", 1),
        ("surface_tolerance_mm", "1.5", 1.5),
        ("overwrite", "true", True),
    ),
    ScoreConfig: (
        ("predictions", "a,b", ("a", "b")),
        ("plan", "c", "c"),
        ("output_dir", "d", "d"),
        ("references", "e", "e"),
        ("raw_dir", "f", "f"),
        ("domains", "b,a", ("b", "a")),
        ("split", "train", "train"),
        ("fold", "1", 1),
        ("surface_tolerance_mm", "1.5", 1.5),
        ("num_workers", "3", 3),
        ("on_bad_case", "fail", "fail"),
        ("max_memory_gb", "2.5", 2.5),
        ("log_every_seconds", "7", 7.0),
    ),
    CompareConfig: (
        ("baseline", "a", "a"),
        ("candidate", "b", "b"),
        ("domains", "b,a", ("b", "a")),
        ("measure", "hd95_mm", "hd95_mm"),
        ("group_by", "(p\\d+)", r"(p\d+)"),
        ("output", "c", "c"),
    ),
    PredictConfig: (
        *WINDOWS,
        ("model", "a,b", ("a", "b")),
        ("runtime", "onnxruntime", "onnxruntime"),
        ("domain", "b", "b"),
        ("domains", "b,a", ("b", "a")),
        ("priority", "b,a", ("b", "a")),
        ("separate_files", "true", True),
        ("modalities", "b,a", ("b", "a")),
        ("input", "c,d", ("c,d",)),
        ("input_list", "f", "f"),
        ("num_parts", "3", 3),
        ("part_id", "2", 2),
        ("output", "e", "e"),
        ("save_probabilities", "true", True),
        ("preview", "true", True),
        ("output_format", "mha", "mha"),
        ("volumes_csv", "g", "g"),
        ("overwrite", "true", True),
    ),
    ComposeConfig: (
        ("models", "b,a", ("b", "a")),
        ("remove", "d,c", ("d", "c")),
        ("prune_to", "1", 1),
        ("model_dir", "e", "e"),
    ),
    ExportConfig: (
        ("model_dir", "a", "a"),
        ("output", "b", "b"),
        ("format", "onnx", "onnx"),
        ("domains", "d,c", ("d", "c")),
        ("checkpoint", "best", "best"),
        ("prune_to", "1", 1),
        ("any_size", "true", True),
        ("volumes", "true", True),
        ("overlap", "0.25", 0.25),
    ),
    AdapterExportConfig: (
        ("model_dir", "a", "a"),
        ("domain", "b", "b"),
        ("output", "c", "c"),
        ("checkpoint", "best", "best"),
        ("precision", "float16", "float16"),
        ("licence", "MIT", "MIT"),
        ("card", "d", "d"),
        ("overwrite", "true", True),
    ),
    AdapterAddConfig: (
        ("model_dir", "a", "a"),
        ("input", "b,c", ("b", "c")),
        ("output_dir", "d", "d"),
    ),
    AdapterRemoveConfig: (
        ("model_dir", "a", "a"),
        ("domains", "b,c", ("b", "c")),
        ("output_dir", "d", "d"),
    ),
    AdapterListConfig: (("model_dir", "a", "a"), ("input", "b,c", ("b", "c"))),
    CertifyConfig: (
        ("before", "a", "a"),
        ("after", "b", "b"),
        ("output", "c.json", "c.json"),
        ("scans_dir", "d", "d"),
        ("check", "e", "e"),
        ("overwrite", "true", True),
        ("log_every_seconds", "4.5", 4.5),
    ),
    PackConfig: (
        ("model_dir", "a", "a"),
        ("output", "b", "b"),
        ("domains", "d,c", ("d", "c")),
        ("checkpoint", "best", "best"),
        ("prune_to", "1", 1),
        ("precision", "float16", "float16"),
        ("licence", "CC-BY-4.0", "CC-BY-4.0"),
        ("intended_use", "a, b", "a, b"),
        ("card_fields", "c", "c"),
        ("evaluation", "e,f", ("e", "f")),
        ("overwrite", "true", True),
    ),
    ServeConfig: (
        ("model", "a,b", ("a", "b")),
        ("runtime", "onnxruntime", "onnxruntime"),
        ("host", "0.0.0.0", "0.0.0.0"),
        ("port", "8123", 8123),
        ("allowed_hosts", "b,c", ("b", "c")),
        ("overlap", "0.25", 0.25),
        ("batch_size", "3", 3),
        ("skip_empty", "false", False),
        ("test_time_mirroring", "true", True),
        ("precision", "mixed_float16", "mixed_float16"),
        ("checkpoint", "best", "best"),
        ("prune_to", "2", 2),
        ("gate_threshold", "0.5", 0.5),
        ("keep_foreground_components", "1", 1),
        ("keep_components", "0", 0),
        ("max_upload_mb", "7.5", 7.5),
        ("max_queue", "3", 3),
        ("max_memory_gb", "2.5", 2.5),
    ),
    SurveyConfig: (
        ("raw_dir", "a", "a"),
        ("domains", "b,a", ("b", "a")),
        ("output_dir", "c", "c"),
        ("spacing_source", "affine", "affine"),
        ("round_labels", "true", True),
        ("resample_modalities", "true", True),
        ("pictures", "p", "p"),
        ("max_memory_gb", "7.5", 7.5),
        ("num_workers", "3", 3),
        ("log_every_seconds", "4.5", 4.5),
    ),
    ConvertConfig: (
        ("log_every_seconds", "4.5", 4.5),
        ("plan", "a", "a"),
        ("data_dir", "b", "b"),
        ("raw_dir", "c", "c"),
        ("domains", "b,a", ("b", "a")),
        ("num_workers", "3", 3),
        ("max_memory_gb", "7.5", 7.5),
        ("shard_size_mb", "7", 7),
        ("compression", "gzip", "gzip"),
        ("image_dtype", "float32", "float32"),
        ("on_bad_case", "skip", "skip"),
        ("resample_modalities", "true", True),
        ("overwrite", "true", True),
    ),
    VerifyConfig: (
        ("data_dir", "b", "b"),
        ("domains", "b,a", ("b", "a")),
        ("log_every_seconds", "4.5", 4.5),
    ),
    PlanConfig: (
        ("survey", "a", "a"),
        ("output", "b", "b"),
        ("domains", "b,a", ("b", "a")),
        ("overwrite", "true", True),
        ("preset", "rule", "rule"),
        ("max_patch_voxels", "5000", 5000),
        ("merge_labels", "c:d=1+2", ("c:d=1+2",)),
        ("regions", "c:e=1+2", ("c:e=1+2",)),
        ("keep_components", "2", "2"),
        ("keep_foreground_components", "1", "1"),
        ("mirror_axes", "z,y", ("z", "y")),
        ("test_fraction", "0.1", 0.1),
        ("validation_fraction", "0.3", 0.3),
        ("num_folds", "4", 4),
        ("seed", "3", 3),
        ("split_by", "x", "x"),
        ("splits_file", "y", "y"),
        ("fold", "z", "z"),
        ("exclude_faulty", "true", True),
        ("max_memory_gb", "7.5", 7.5),
        ("unknown_labels", "background", "background"),
        ("margin_voxels", "1", 1),
        ("clip_percentiles", "1,99", (1, 99)),
        ("intensity_floor", "-10", -10),
        ("statistics_over", "positive", "positive"),
        ("intensity_normalization", "dataset", "dataset"),
        ("size_rounding", "truncate", "truncate"),
    ),
    AdaptConfig: (
        *COMMON,
        ("from", "a", "a"),
        ("domain", "b", "b"),
        ("init", "c", "c"),
    ),
    OverlaysConfig: (
        ("image", "a", ("a",)),
        ("reference", "b", ("b",)),
        ("prediction", "c", ("c",)),
        ("plan", "e", "e"),
        ("output", "d", "d"),
        ("cases", "2", 2),
    ),
    CurvesConfig: (("model_dir", "a", "a"), ("output", "b", "b")),
    ContactSheetConfig: (
        *AUGMENTATION,
        ("data_dir", "here", "here"),
        ("domain", "b", "b"),
        ("output", "c", "c"),
        ("num_patches", "2", 2),
        ("modality", "1", 1),
        ("seed", "11", 11),
        ("mirror_probability", "1", 1),
        ("patch_size", "16,8,24", (16, 8, 24)),
        ("resize_method", "cubic", "cubic"),
    ),
    ComplexityConfig: (
        *NETWORK,
        *SHARP,
        ("plan", "a", "a"),
        ("domains", "b,a", ("b", "a")),
        ("json", "true", True),
    ),
    PortConfig: (
        ("weights", "a", "a"),
        ("plan", "b", "b"),
        ("domains", "b,a", ("b", "a")),
        ("model_dir", "c", "c"),
        ("patch_size", "16,8,24", (16, 8, 24)),
        ("resize_method", "cubic", "cubic"),
        *NETWORK,
    ),
}


# Flags that others require.
NEEDED = {
    "learning_rate_schedule": {"max_epochs": "9"},
    "num_parts": {"part_id": "1"},
    "part_id": {"num_parts": "3"},
}
# Flags that exclude others.
ALONE = {"volumes_csv"}
COMMANDS = [
    f"u2net_tf.{n}" for n in ["train", "adapt", "compose", "evaluate", "predict"]
]
COMMANDS += ["u2net_tf.score", "u2net_tf.compare"]
COMMANDS += ["u2net_tf.export", "u2net_tf.pack", "u2net_tf.serve"]
COMMANDS += ["u2net_tf.adapter", "u2net_tf.certify"]
COMMANDS += ["u2net_tf.show_augmentations", "u2net_tf.draw_overlays"]
COMMANDS += ["u2net_tf.plot_training", "u2net_tf.port_torch_weights"]
COMMANDS += [f"data_prep.{name}" for name in ["survey", "plan", "convert", "verify"]]


@pytest.fixture(params=FLAGS, ids=lambda config: config.__name__)
def config(request):
    return request.param


def read(config, arguments):
    """Returns the config of a command line."""
    values = flags.FlagValues()
    command_flags.define(config, values=values)
    values(["command", *arguments])
    return command_flags.read(config, values=values)


def arguments_of(config):
    """Gives every flag that excludes no other one a value other than its default."""
    return [f"--{n}={value}" for n, value, _ in FLAGS[config] if n not in ALONE]


def required(config):
    """Values of the flags without a default."""
    return {
        flagfile.flag_name(name): "some"
        for name, field in config.settings().items()
        if field.is_required()
    }


def test_every_flag_is_in_the_table(config):
    names = [flagfile.flag_name(name) for name in config.settings()]
    assert sorted(names) == sorted(name for name, *_ in FLAGS[config])


def test_every_setting_has_a_description(config):
    """`--help` prints it."""
    missing = [
        name for name, field in config.settings().items() if not field.description
    ]
    assert not missing


def test_each_flag_sets_its_setting(config):
    needed = required(config)
    default = read(config, [f"--{n}={v}" for n, v in needed.items()]).flat()
    together = read(config, arguments_of(config)).flat()
    for name, text, expected in FLAGS[config]:
        given = {**needed, **NEEDED.get(name, {}), name: text}
        alone = read(config, [f"--{n}={v}" for n, v in given.items()]).flat()
        setting = name if name in alone else f"{name}_"
        assert alone[setting] == expected, name
        assert name in ALONE or together[setting] == expected, name
        assert default[setting] != expected, f"{name}: this is the default"


def test_alias_of_a_flag():
    needed = ["--domain=b", "--output=c"]
    assert read(PredictConfig, ["--model_dir=a", *needed]).model == ("a",)
    assert read(PredictConfig, ["--model_dir=a", "--model=d", *needed]).model == ("d",)
    with pytest.raises(InputError, match="`model`: expected a value"):
        read(PredictConfig, needed)


def test_aliases_are_removed_with_the_flags():
    command_flags.define(PredictConfig)
    assert "model_dir" in flags.FLAGS
    command_flags.define(VerifyConfig)
    assert "model_dir" not in flags.FLAGS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--domains=a", "--domains=b"], "`domains`: expected one list, .* commas. R"),
        (["-domains", "a", "--seed=1", "--domains", "b"], "Received: 2 lists$"),
        (["--domains=a", "--domains=b", "--domains=c"], "Received: 3 lists$"),
        (["--domains=a,b", "--seed=1", "--seed=2", "--folds"], None),
        (["--domains=a", "--", "--domains=b"], None),
    ],
)
def test_a_list_is_given_once(arguments, words):
    argv = ["train", *arguments]
    if words is None:
        command_flags.require_lists_given_once(argv, TrainConfig)
    else:
        with pytest.raises(InputError, match=words):
            command_flags.require_lists_given_once(argv, TrainConfig)


def test_repeatable_lists_and_aliases():
    given = ["predict", "--input=a", "--input=b", "--model=c"]
    command_flags.require_lists_given_once(given, PredictConfig)
    with pytest.raises(InputError, match="`model`: expected one list"):
        command_flags.require_lists_given_once([*given, "--model_dir=d"], PredictConfig)


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ["--model=~/m", "--output=./~/o", "--input=~/a", "--input=~b", "--domain=~"]
    chosen = read(PredictConfig, given)
    assert chosen.model == ("/home/me/m",)
    assert (chosen.output, chosen.domain) == ("./~/o", "~")
    assert chosen.input == ("/home/me/a", "~b")


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        (CertifyConfig, ["--check="], "`check`: expected a non-empty string"),
        (SurveyConfig, ["--pictures="], "`pictures`: expected a non-empty string"),
        (TrainConfig, ["--init_from="], "`init_from`: expected a non-empty string"),
        (OverlaysConfig, ["--image="], "`image`: expected a value"),
    ],
)
def test_values_of_unset_shell_variables(config, arguments, words):
    given = required(config)
    for argument in arguments:
        given.pop(argument.strip("-="), None)
    others = [f"--{name}={value}" for name, value in given.items()]
    with pytest.raises(InputError, match=words):
        read(config, [*others, *arguments])


def test_repeatable_flags():
    given = ["--image=a", "--image=b,c", "--prediction=d", "--reference="]
    chosen = read(OverlaysConfig, [*given, "--output=e"])
    assert chosen.image == ("a", "b,c")
    assert chosen.reference == ("",)


def test_flagfile_has_each_flag_once_and_restores_it(config, tmp_path):
    chosen = read(config, arguments_of(config))
    text = flagfile.to_text(chosen)
    names = [line.removeprefix("--").partition("=")[0] for line in text.splitlines()]
    table = {name: value for name, _, value in FLAGS[config] if name not in ALONE}
    expected = [
        f"no{name}" if value is False else name for name, value in table.items()
    ]
    assert sorted(names) == sorted(expected)
    path = tmp_path / "flags.txt"
    path.write_text(text)
    assert read(config, [f"--flagfile={path}"]) == chosen


@pytest.mark.parametrize(
    "values", [{"detach_focal_factor": True}, {"detach_focal_factor": False}, {}]
)
def test_flagfile_of_false_and_empty_values(values):
    chosen = TrainConfig.from_flat({"data_dir": "a", "model_dir": "b", **values})
    text = flagfile.to_text(chosen)
    assert "--pools=\n" in text
    assert "last_decoder_kernel" not in text
    assert read(TrainConfig, text.splitlines()) == chosen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "^`data_dir`: expected a value. Received: none$"),
        (["--data_dir="], "^`data_dir`: expected a value. Received: none$"),
        (
            ["--pools=1,1"],
            "^`pools`: expected three integers z,y,x .* 0. Received: 1,1$",
        ),
        (["--patch_size=8,0,8"], "`patch_size`: .* of at least 1. Received: 8,0,8"),
        (["--scale=1"], "`scale`: expected two numbers lowest,highest. Received: 1$"),
        (
            ["--scale=2,1"],
            "^`scale`: expected .lowest, highest., both above 0 .*: .2.0, 1.0.$",
        ),
        (
            ["--plateau_factor=1"],
            "^`plateau_factor`: expected a number below 1. Received: 1.0$",
        ),
        (
            ["--learning_rate=1e-9"],
            "^`learning_rate`: expected at least `min_learning_rate`, which is .*. Rec",
        ),
    ],
)
def test_invalid_values_are_reported(arguments, words):
    given = {"data_dir": "a", "model_dir": "b"}
    first = [f"--{n}={v}" for n, v in given.items()] if arguments else []
    with pytest.raises(InputError, match=words):
        read(TrainConfig, [*first, *arguments])


def test_all_commands_can_be_imported_together():
    """No flag is defined twice, because none is defined at import."""
    for name in COMMANDS:
        importlib.import_module(name)
    before = set(flags.FLAGS)
    for config in FLAGS:
        command_flags.define(config)
    names = {flagfile.flag_name(name) for name in config.settings()}
    names |= OLD_FLAGS.keys()
    assert names - OLD_FLAGS.keys() <= set(flags.FLAGS)
    assert set(flags.FLAGS) - names <= before


class TestConfig:
    def test_a_model_is_composed_once(self):
        with pytest.raises(
            ValueError, match="expected distinct values. Received: a,b,a"
        ):
            ComposeConfig(models=("a", "b", "a"), model_dir="c")

    def test_an_unknown_setting_is_an_error(self):
        with pytest.raises(ValueError, match="did you mean learning_rate?"):
            TrainConfig.from_flat({"data_dir": "", "model_dir": "", "lerning_rate": 1})

    @pytest.mark.parametrize(
        ("name", "value"), [("keep", "1"), ("keep", 1.0), ("learning_rate", "1")]
    )
    def test_types_are_not_coerced(self, name, value):
        values = {"data_dir": "", "model_dir": ""}
        with pytest.raises(ValueError, match=name):
            TrainConfig.from_flat({**values, name: value})

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("learning_rate", 0.0, "^`learning_rate`: expected a number above 0. Rec"),
            ("keep", 0, "`keep`: expected a number of at least 1. Received: 0"),
            ("loss_ema_decay", 1.0, "expected a number below 1. Received: 1.0"),
            ("seed", 2**31, "`seed`: expected a number of at most 2.14748e.09. Rec"),
            ("adapter", "full", "expected 'separable', 'series', 'parallel' or 'none'"),
            (
                "smallest_share",
                0.9,
                "^`smallest_share` . `foreground_share`: expected at",
            ),
        ],
    )
    def test_errors_are_one_line(self, name, value, words):
        with pytest.raises(pydantic.ValidationError) as caught:
            TrainConfig.from_flat({"data_dir": "", "model_dir": "", name: value})
        message = str(to_input_error(caught.value))
        assert re.search(words, message)
        assert "\n" not in message

    def test_is_frozen(self):
        made = TrainConfig.from_flat({"data_dir": "a", "model_dir": "b"})
        with pytest.raises(ValueError, match="frozen"):
            made.run.keep = 5
        assert made.with_changes(keep=5).run.keep == 5
        assert made.run.keep == 3

    def test_a_name_must_not_be_in_two_groups(self):
        class Twice(Config):
            run: RunConfig
            keep: int = 1

        with pytest.raises(TypeError, match="keep"):
            Twice.settings()


class TestOldFlags:
    @pytest.mark.parametrize(
        ("old", "name", "value"),
        [
            ("--certain_share=0.25", "oversample_foreground_fraction", 0.25),
            ("--eval_every=7", "validate_every_epochs", 7),
            ("--learning_rate_factor=4", "plateau_factor", 0.25),
            ("--learning_rate_factor=5.0", "plateau_factor", 0.2),
            ("--loss_decay=0.5", "loss_ema_decay", 0.5),
            ("--min_fall=0.125", "plateau_min_delta", 0.125),
            ("--recompute=blocks", "gradient_checkpointing", "blocks"),
            ("--second_up_conv=full", "last_decoder_kernel", 3),
            ("--second_up_conv=pointwise", "last_decoder_kernel", 1),
        ],
    )
    def test_set_the_new_ones_and_warn(self, old, name, value, caplog):
        given = ["--data_dir=a", "--model_dir=b"]
        assert read(TrainConfig, [*given, old]).flat()[name] == value
        (message,) = [record.getMessage() for record in caplog.records]
        assert message == f"{old} was renamed: use --{name}={value}"

    def test_all_map_to_flags_of_train(self):
        new = {name for name, _ in OLD_FLAGS.values()}
        assert new <= TrainConfig.settings().keys()
        assert not OLD_FLAGS.keys() & TrainConfig.settings().keys()

    def test_the_last_of_old_and_new_counts(self):
        given = ["--data_dir=a", "--model_dir=b"]
        lines = ["--learning_rate_factor=4", "--plateau_factor=0.5"]
        for order, value in ((lines, 0.5), (lines[::-1], 0.25)):
            chosen = read(TrainConfig, [*given, *order])
            assert chosen.schedule.plateau_factor == value

    @pytest.mark.parametrize("text", ["0", "five"])
    def test_an_invalid_factor_is_an_error(self, text):
        with pytest.raises(InputError, match="Use `plateau_factor` instead"):
            read(TrainConfig, [f"--learning_rate_factor={text}"])

    def test_equal_the_new_ones_in_an_older_flags_txt(self):
        before = "--learning_rate_factor=5.0\n--second_up_conv=full\n--eval_every=10\n"
        now = "--plateau_factor=0.2\n--last_decoder_kernel=3\n"
        same = now + "--validate_every_epochs=10\n"
        assert flagfile.changes(before, same) == []
        assert flagfile.changes(before, now + "--validate_every_epochs=5\n") == [
            "was --validate_every_epochs=10, now --validate_every_epochs=5"
        ]
        assert flagfile.changes("--learning_rate_factor=five\n", now) == [
            "was --plateau_factor=five, now --plateau_factor=0.2"
        ]
