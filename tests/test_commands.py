import csv
import json

import nibabel as nib
import numpy as np
import pytest
from command_session import help_of, python, session

COMMANDS = (
    "data_prep.survey",
    "data_prep.plan",
    "data_prep.convert",
    "data_prep.verify",
    "u2net_tf.train",
    "u2net_tf.adapt",
    "u2net_tf.compose",
    "u2net_tf.evaluate",
    "u2net_tf.predict",
    "u2net_tf.networks.complexity",
    "tools.draw_network",
    "tools.port_torch_weights",
)
NETWORK = (
    "--adapter=none",
    "--pools=1,0,1",
    "--base_channels=2",
    "--learning_rate=0.02",
)
# What every training here is done with; two domains, three steps per epoch.
SHORT = (*NETWORK, "--steps_per_epoch=3", "--eval_every=0", "--distribution=none")


def file_times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(command):
    watched = ("tensorflow", "numpy", "nibabel", "SimpleITK", "tqdm")
    text, imported = help_of(command, watched)
    assert imported == "[]", f"--help of {command} imports {imported}"
    said = "\n".join(text)
    assert f"{command.replace('.', '/')}.py" in said or "flags:" in said
    assert any("--" in line for line in text)


def test_help_of_a_console_script_is_that_of_the_command():
    script = "import sys; from u2net_tf import adapt; sys.argv[0] = 'u2net-adapt'; "
    done = python("-c", script + "adapt.run()", "--help")
    assert "Adds a new domain to a trained model" in done.stdout
    for name in ("from", "domain", "learning_rate"):
        assert f"--{name}:" in done.stdout


class TestWrongFlags:
    """Answered before anything is imported or written."""

    @pytest.mark.parametrize(
        ("command", "arguments", "words"),
        [
            ("train", [], "error: --data_dir: expected a value, found none"),
            ("train", ["--data_dir=x"], "error: --model_dir: expected a value"),
            ("adapt", ["--from=x"], "error: --domain: expected a value, found none"),
            ("compose", [], "error: --models: expected a value, found none"),
            (
                "compose",
                ["--models=a,a", "--model_dir=b"],
                "error: --models: expected each once, found a,a",
            ),
            ("evaluate", [], "error: --model_dir: expected a value, found none"),
            ("predict", ["--model_dir=x"], "error: --domain: expected a value"),
            (
                "predict",
                ["--model_dir=x", "--domain=y", "--input=", "--output=z"],
                "error: --input: expected a value",
            ),
            (
                "train",
                ["--data_dir=x", "--model_dir=y", "more"],
                "error: expected flags only (--name=value), found ['more']",
            ),
            ("train", ["--data_dri=x"], "Unknown command line flag 'data_dri'"),
            ("train", ["--keep=0"], "flag --keep=0"),
            ("predict", ["--overlap=1"], "flag --overlap=1"),
            ("evaluate", ["--split=all"], "flag --split=all"),
        ],
    )
    def test_are_named(self, command, arguments, words):
        done = python("-m", f"u2net_tf.{command}", *arguments)
        assert done.returncode == 1
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A model after one epoch, then after two, and what other calls ended with."""
    work = tmp_path_factory.mktemp("trained")
    common = (f"--data_dir={tiny_data.data_dir}", f"--model_dir={work / 'model'}")
    results = session(
        "u2net_tf.train",
        {
            "first": (*common, *SHORT, "--max_epochs=1"),
            "second": (f"--flagfile={work / 'model' / 'flags.txt'}", "--max_epochs=2"),
            "again": (*common, *SHORT, "--max_epochs=2"),
            "other network": (*common, *SHORT, "--base_channels=3"),
            "other domains": (*common, *SHORT, "--domains=Task92_Two"),
            "unknown domain": (*common, *SHORT, "--domains=Task93"),
            "no shards": (common[1], f"--data_dir={work / 'no'}", *SHORT),
            "two pools": (*common, *SHORT, "--pools=1,1"),
            "patch of nothing": (*common, *SHORT, "--patch_size=0,8,8"),
            "patch": (*common, *SHORT, "--patch_size=8,8,7"),
            "rule": (*common, *SHORT, "--patience_epochs=0"),
            "shares": (*common, *SHORT, "--smallest_share=2"),
        },
    )
    return work / "model", results


class TestTrain:
    def test_says_what_it_wrote(self, trained):
        model_dir, results = trained
        assert results["first"]["status"] == 0
        said = results["first"]["stdout"]
        assert said.startswith(
            f"{model_dir}: 3 steps in 1 epochs (ended by --max_epochs"
        )
        assert f"tensorboard --logdir={model_dir / 'tensorboard'}" in said

    def test_goes_on_where_it_stopped_with_the_flags_it_wrote(self, trained):
        model_dir, results = trained
        assert results["second"]["status"] == 0
        assert results["second"]["stdout"].startswith(
            f"{model_dir}: 6 steps in 2 epochs"
        )
        with (model_dir / "training.csv").open(newline="") as stream:
            assert [row["step"] for row in csv.DictReader(stream)] == ["3", "6"]

    def test_again_has_nothing_to_do(self, trained):
        model_dir, results = trained
        assert results["again"]["status"] == 0
        assert results["again"]["stdout"].startswith(
            f"{model_dir}: 6 steps in 2 epochs"
        )

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("other network", "expected base_channels 3, found 2; use another --mod"),
            ("other domains", "expected domains ('Task92_Two',), found ('Task91_One"),
            ("unknown domain", "expected one of Task91_One, Task92_Two"),
            ("no shards", "no/plan.json: expected a plan"),
            (
                "two pools",
                "--pools: expected three whole numbers z,y,x of at least 0, ",
            ),
            (
                "patch of nothing",
                "--patch_size: expected three whole numbers z,y,x of ",
            ),
            ("patch", "patch_size: expected sizes divisible by 2**pools, pools bei"),
            ("rule", "flags: expected patience_epochs >= 1"),
            ("shares", "flags: smallest_share: expected a share from 0 to 1"),
        ],
    )
    def test_wrong_input_is_one_message(self, trained, line, words):
        status = trained[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status


# Flags of the augmentation, a value other than the default, and as what it arrives.
AUGMENTATION = (
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


class TestTrainFlags:
    # Flag, a value other than its default, where it arrives, and as what.
    FLAGS = (
        ("data_dir", "here", ("inputs", "data_dir"), "here"),
        ("model_dir", "there", ("settings", "model_dir"), "there"),
        ("domains", "b,a", ("domains",), ["b", "a"]),
        ("adapter", "series", ("network", "adapter"), "series"),
        ("base_channels", "3", ("network", "base_channels"), 3),
        ("pools", "3,2,0", ("pools",), [3, 2, 0]),
        ("second_up_conv", "full", ("network", "second_up_conv"), "full"),
        ("independent", "true", ("independent",), True),
        ("precision", "mixed_float16", ("computing", "dtype"), "mixed_float16"),
        ("recompute", "blocks", ("computing", "recompute"), "blocks"),
        ("patch_size", "16,8,24", ("inputs", "patch_size"), [16, 8, 24]),
        ("batch_size", "5", ("inputs", "batch_size"), 5),
        ("resize_method", "cubic", ("inputs", "resize_method"), "cubic"),
        ("certain_share", "0.5", ("inputs", "sampling", "certain_share"), 0.5),
        ("smallest_share", "0.1", ("inputs", "sampling", "smallest_share"), 0.1),
        ("foreground_share", "0.2", ("inputs", "sampling", "foreground_share"), 0.2),
        ("mirror_probability", "1", ("inputs", "sampling", "mirror_probability"), 1),
        *(
            (name, value, ("inputs", "augmentation", name), found)
            for name, value, found in AUGMENTATION
        ),
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
    )
    # Prints the flags there are, then the settings of each command line.
    SCRIPT = """
import dataclasses, json, sys
from absl import flags
from u2net_tf import train
modules = flags.FLAGS.flags_by_module_dict()
own = [name for name in modules if name.startswith("u2net_tf.")]
print(json.dumps([flag.name for name in own for flag in modules[name]]))
for line in json.load(sys.stdin):
    for name in list(flags.FLAGS):
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train", *line])
    print(json.dumps(train._settings(), default=dataclasses.asdict))
"""
    # As a command starts: without what TensorFlow adds to the flags.
    REPEAT = """
import sys
from absl import flags
from u2net_tf import train
flags.FLAGS(sys.argv)
print(train._settings()["flags_text"], end="")
"""

    def test_each_arrives_where_it_belongs(self, tmp_path):
        together = [f"--{name}={value}" for name, value, *_ in self.FLAGS]
        lines = [[], *([flag] for flag in together), together]
        names, bare, *alone, joint = map(
            json.loads, self.run(self.SCRIPT, text=json.dumps(lines))
        )
        assert sorted(names) == sorted(name for name, *_ in self.FLAGS)
        for (name, _, path, expected), settings in zip(self.FLAGS, alone, strict=True):
            assert dig(settings, path) == expected, name
            assert dig(bare, path) != expected, f"{name}: a value of its own is tried"
        # What a run notes of its flags repeats it.
        (tmp_path / "flags.txt").write_text(joint["flags_text"])
        flagfile = f"--flagfile={tmp_path / 'flags.txt'}"
        assert self.run(self.REPEAT, flagfile) == joint["flags_text"].splitlines()

    def run(self, *arguments, text=""):
        done = python("-c", *arguments, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


def dig(settings, path):
    for key in path:
        settings = settings[key]
    return settings


@pytest.fixture(scope="module")
def evaluated(trained, tiny_data, tmp_path_factory):
    work = tmp_path_factory.mktemp("evaluated")
    model = f"--model_dir={trained[0]}"
    out = f"--output_dir={work / 'out'}"
    two = ("--domains=Task92_Two",)
    results = session(
        "u2net_tf.evaluate",
        {
            "first": (model, out),
            "again": (model, out),
            "overlap": (model, out, *two, "--overlap=0.25", "--batch_size=3"),
            "validation": (model, "--split=validation"),
            "raw_dir": (model, f"--raw_dir={work / 'no'}"),
            "nothing": (model, *two, "--split=validation"),
            "unknown domain": (model, "--domains=Task93"),
            "no model": (f"--model_dir={work / 'no'}",),
        },
    )
    return work, results


class TestEvaluate:
    def test_prints_the_table_and_says_what_it_wrote(self, evaluated, trained):
        work, results = evaluated
        assert results["first"]["status"] == 0
        *table, last = results["first"]["stdout"].splitlines()
        assert [line.split()[:2] for line in table[2:5]] == [
            ["Task91_One", "organ"],
            ["Task92_Two", "rim"],
            ["Task92_Two", "core"],
        ]
        assert last == (
            f"2 test cases of {trained[0] / 'checkpoints' / 'step-6'}: dice.csv, "
            f"summary.json and predictions in {work / 'out'}"
        )

    def test_writes_a_label_map_per_case(self, evaluated, tiny_data):
        work, _ = evaluated
        for name, case in (("Task91_One", "one_5"), ("Task92_Two", "two_2")):
            path = work / "out" / "predictions" / name / f"{case}.nii.gz"
            label = tiny_data.raw_dir / name / "labelsTr" / f"{case}.nii.gz"
            assert nib.load(path).shape == nib.load(label).shape

    def test_again_predicts_nothing(self, evaluated):
        _, results = evaluated
        assert results["first"]["windows"] == [{"overlap": 0.5, "batch_size": 1}] * 2
        assert results["again"]["windows"] == []
        assert results["again"]["stdout"] == results["first"]["stdout"]

    def test_domains_overlap_and_batch_size(self, evaluated):
        work, results = evaluated
        assert results["overlap"]["windows"] == [{"overlap": 0.25, "batch_size": 3}]
        # The last run with this folder was of one domain.
        summary = json.loads((work / "out" / "summary.json").read_text())
        assert {row["domain"] for row in summary["classes"]} == {"Task92_Two"}
        assert summary["split"] == "test"
        rows = (work / "out" / "dice.csv").read_text().splitlines()
        assert [row.split(",")[:3] for row in rows[1:]] == [
            ["Task92_Two", "two_2", "rim"],
            ["Task92_Two", "two_2", "core"],
        ]

    def test_split_and_the_folder_that_it_names(self, evaluated, trained):
        assert len(evaluated[1]["validation"]["windows"]) == 2
        summary = json.loads((trained[0] / "validation" / "summary.json").read_text())
        assert [row["num_cases"] for row in summary["classes"]] == [2, 0, 0]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("raw_dir", "no/Task91_One/dataset.json: expected a file"),
            ("nothing", "--split: expected cases in 'validation', found none"),
            ("unknown domain", "'Task93' is not in the plan; expected one of Task91_"),
            ("no model", "no: expected a model as `python -m u2net_tf.train` writes"),
        ],
    )
    def test_wrong_input_is_one_message(self, evaluated, line, words):
        status = evaluated[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status


@pytest.fixture(scope="module")
def predicted(trained, tiny_data, tmp_path_factory):
    """Predictions, and when their files were written after each command line."""
    work = tmp_path_factory.mktemp("predicted")
    scans = tiny_data.raw_dir / "Task92_Two" / "imagesTr"
    (work / "some").mkdir()
    some = work / "some" / "two_0.nii.gz"
    some.write_bytes((scans / "two_0.nii.gz").read_bytes())
    (work / "file").touch()
    # Made by hand, as it were.
    precious = work / "precious" / "two_0.nii.gz"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    common = (f"--model_dir={trained[0]}", "--domain=Task92_Two")
    output = f"--output={work / 'out'}"
    probable = f"--output={work / 'probable'}"
    results = session(
        "u2net_tf.predict",
        {
            "one": (*common, f"--input={scans / 'two_0.nii.gz'}", output),
            "all": (*common, f"--input={scans}", output),
            "again": (*common, f"--input={scans}", output),
            "edges": (*common, f"--input={some}", output, "--overlap=0.75"),
            "overwrite": (*common, f"--input={some}", output, "--overwrite"),
            "options": (*common, f"--input={some}", probable, "--overlap=0.25",
                        "--batch_size=2"),
            "probabilities": (*common, f"--input={some}", probable,
                              "--save_probabilities"),
            "precious": (*common, f"--input={some}", f"--output={precious.parent}"),
            "unknown domain": (common[0], "--domain=Task93", f"--input={some}", output),
            "no model": (f"--model_dir={work}", common[1], f"--input={some}", output),
            "no input": (*common, f"--input={work / 'no'}", output),
            "three inputs": (*common, f"--input={some},{some},{some}", output),
            "one modality": (
                *common,
                f"--input={tiny_data.raw_dir / 'Task91_One/imagesTr/one_0.nii.gz'}",
                output,
            ),
            "output is a file": (*common, f"--input={some}",
                                 f"--output={work / 'file'}"),
            "over the scans": (*common, f"--input={some}", f"--output={work / 'some'}",
                               "--overwrite"),
        },
    )  # fmt: skip
    return work, results


class TestPredict:
    def test_writes_label_maps_of_the_plan_s_values(self, predicted, tiny_data):
        work, results = predicted
        assert results["all"]["status"] == 0
        files = sorted((work / "out").glob("*.nii.gz"))
        assert [p.name for p in files] == [f"two_{i}.nii.gz" for i in range(3)]
        for path in files:
            scan = nib.load(tiny_data.raw_dir / "Task92_Two" / "imagesTr" / path.name)
            label_map = nib.load(path)
            assert label_map.shape == scan.shape[:3]
            assert set(np.unique(label_map.dataobj)) <= {0, 4, 2}
            np.testing.assert_array_equal(label_map.affine, scan.affine)

    def test_passes_over_what_is_there(self, predicted, trained):
        work, results = predicted
        checkpoint = trained[0] / "checkpoints" / "step-6"
        said = f"label maps of Task92_Two by {checkpoint} in {work / 'out'}"
        assert results["one"]["stdout"] == f"1 {said}\n"
        assert results["all"]["stdout"] == f"3 {said} (1 were there already)\n"
        assert results["again"]["stdout"] == f"3 {said} (3 were there already)\n"
        counts = [len(results[line]["windows"]) for line in ("one", "all", "again")]
        assert counts == [1, 2, 0]

    def test_overwrite_predicts_again(self, predicted):
        work, results = predicted
        assert len(results["overwrite"]["windows"]) == 1
        assert "already" not in results["overwrite"]["stdout"]

    def test_what_was_made_with_something_else_is_predicted_again(self, predicted):
        work, results = predicted
        assert results["edges"]["windows"] == [{"overlap": 0.75, "batch_size": 1}]

    def test_overlap_and_batch_size(self, predicted):
        results = predicted[1]
        assert results["one"]["windows"] == [{"overlap": 0.5, "batch_size": 1}]
        assert results["options"]["windows"] == [{"overlap": 0.25, "batch_size": 2}]

    def test_probabilities_are_made_where_only_the_label_map_is_there(self, predicted):
        work, results = predicted
        assert len(results["probabilities"]["windows"]) == 1
        path = work / "probable" / "two_0_probabilities.nii.gz"
        probabilities = nib.load(path).get_fdata()
        assert probabilities.shape == (12, 12, 10, 3)
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("unknown domain", "expected one of Task91_One, Task92_Two"),
            ("precious", "expected no file, or one that predict wrote, found another"),
            ("no model", "expected a model as `python -m u2net_tf.train` writes it"),
            ("no input", "--input: "),
            ("three inputs", "--input: expected 2 paths, one per modality, found 3"),
            ("one modality", "one_0.nii.gz: expected 2 modalities, found 1"),
            ("output is a file", "--output: expected a folder, found the file"),
            ("over the scans", "which would be written over"),
        ],
    )
    def test_wrong_input_is_one_message(self, predicted, line, words):
        status = predicted[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status
