import csv
import json
import pathlib
import shutil
import types

import nibabel as nib
import numpy as np
import pytest
import toy
from command_server import CommandServer
from command_session import python, session

from u2net_tf import command, predict
from u2net_tf.config.inference import PredictConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import label_maps
from u2net_tf.inference.backends import opening
from u2net_tf.plan.plan_file import plan_to_json

COMMANDS = (
    "data_prep.survey",
    "data_prep.plan",
    "data_prep.convert",
    "data_prep.verify",
    "u2net_tf.train",
    "u2net_tf.adapt",
    "u2net_tf.compose",
    "u2net_tf.export",
    "u2net_tf.pack",
    "u2net_tf.adapter",
    "u2net_tf.certify",
    "u2net_tf.evaluate",
    "u2net_tf.score",
    "u2net_tf.compare",
    "u2net_tf.predict",
    "u2net_tf.serve",
    "u2net_tf.describe",
    "u2net_tf.complexity",
    "tools.compare_gates",
    "tools.draw_network",
    "u2net_tf.show_augmentations",
    "u2net_tf.draw_overlays",
    "u2net_tf.plot_training",
    "u2net_tf.port_torch_weights",
)
NETWORK = (
    "--adapter=none",
    "--pools=1,0,1",
    "--base_channels=2",
    "--learning_rate=0.02",
)
# Flags of all training runs here: two domains, three steps per epoch.
SHORT = (
    *NETWORK,
    "--steps_per_epoch=3",
    "--validate_every_epochs=0",
    "--distribution=none",
)


@pytest.fixture(scope="module")
def server():
    with CommandServer() as server:
        yield server


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(server, command):
    watched = ("tensorflow", "numpy", "nibabel", "SimpleITK", "tqdm", "matplotlib")
    done = server.run(command, "--help", watched=watched)
    assert done.imported == []
    assert done.returncode == 0
    names_flags = f"{command.replace('.', '/')}.py" in done.stdout
    # Its flags depend on the subcommand: see `test_adapter_commands.py`.
    is_group = command == "u2net_tf.adapter"
    assert names_flags or is_group or "flags:" in done.stdout
    assert "--" in done.stdout


def test_help_of_a_console_script_is_that_of_the_command():
    script = "import sys; from u2net_tf import adapt; sys.argv[0] = 'u2net-adapt'; "
    done = python("-c", script + "adapt.run()", "--help")
    assert "Adds a new domain to a trained model" in done.stdout
    for name in ("from", "domain", "learning_rate"):
        assert f"--{name}:" in done.stdout


PART = ["--model=m", "--domain=d", "--input=i", "--output=o"]


class TestWrongFlags:
    """Rejected before anything is imported or written."""

    @pytest.mark.parametrize(
        ("command", "arguments", "words"),
        [
            ("train", [], "error: --data_dir: expected a value. Received: none"),
            ("train", ["--data_dir=x"], "error: --model_dir: expected a value"),
            ("adapt", ["--from=x"], "error: --data_dir: expected a value. Received: "),
            ("compose", [], "error: --models: expected a value. Received: none"),
            (
                "compose",
                ["--models=a,a", "--model_dir=b"],
                "error: --models: expected distinct values. Received: a,a",
            ),
            ("export", [], "error: --model_dir: expected a value. Received: none"),
            (
                "export",
                ["--model_dir=a", "--output=b", "--format=pb"],
                "error: --format: expected one of saved_model, onnx, openvino",
            ),
            ("pack", ["--model_dir=a"], "error: --output: expected a value"),
            (
                "pack",
                ["--model_dir=a", "--output=b.zip"],
                "error: --output: expected a name that ends with .u2net. Rec",
            ),
            ("evaluate", [], "error: --model_dir: expected a value. Received: none"),
            (
                "predict",
                ["--model_dir=x", "--output=z"],
                "error: --domain: expected a value here or for --domains. "
                "Received: neither",
            ),
            (
                "predict",
                ["--model_dir=x", "--domain=y", "--input=", "--output=z"],
                "error: --input: expected a value",
            ),
            (
                "train",
                ["--data_dir=x", "--model_dir=y", "more"],
                "(--name=value). Received: more\n",
            ),
            (
                "train",
                ["--data_dri=x"],
                "error: command line: expected a flag listed by --help. Received: "
                "--data_dri. Did you mean --data_dir?\n",
            ),
            (
                "train",
                ["--keep=0"],
                "error: --keep: expected a positive integer. Received: 0\n",
            ),
            (
                "train",
                ["--patience_epochs=x"],
                "error: --patience_epochs: expected a positive integer. Received: x\n",
            ),
            (
                "train",
                ["--smallest_share=2"],
                "error: --smallest_share: expected a number in the range [0, 1]. "
                "Received: 2\n",
            ),
            ("predict", ["--overlap=1"], "error: --overlap: expected a number in the "),
            (
                "predict",
                [
                    "--model_dir=m",
                    "--domain=d",
                    "--output=o",
                    "--input_list=a.csv",
                    "--volumes_csv=./a.csv",
                ],
                "error: --volumes_csv: expected a file other than --input_list. Rec",
            ),
            (
                "predict",
                [*PART, "--num_parts=3"],
                "error: --part_id: expected a part from 0 to 2, since --num_parts is 3."
                " Received: none\n",
            ),
            (
                "predict",
                [*PART, "--num_parts=3", "--part_id=3"],
                "since --num_parts is 3. Received: 3\n",
            ),
            ("predict", [*PART, "--part_id=1"], "since --num_parts is 1. Received: 1"),
            (
                "predict",
                [*PART, "--num_parts=2", "--part_id=1", "--volumes_csv=a.csv"],
                "error: --volumes_csv: expected no table with several parts, since",
            ),
            (
                "predict",
                ["--overwrite=maybe"],
                "error: --overwrite: expected true or false. Received: maybe\n",
            ),
            (
                "evaluate",
                ["--split=all"],
                "error: --split: expected one of train, validation, test. Received: "
                "all\n",
            ),
            (
                "train",
                ["--min_fall=x"],
                "error: --plateau_min_delta: expected a number. ",
            ),
            (
                "train",
                ["--learning_rate_factor=x"],
                "error: --learning_rate_factor: expected a number other than 0. "
                "Received: x. Use --plateau_factor instead\n",
            ),
        ],
    )
    def test_are_reported(self, server, command, arguments, words):
        done = server.run(f"u2net_tf.{command}", *arguments)
        assert done.returncode == 1
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A model after one epoch, then after two, and the results of other calls."""
    work = tmp_path_factory.mktemp("trained")
    common = (f"--data_dir={tiny_data.data_dir}", f"--model_dir={work / 'model'}")
    # Compiling with XLA takes long: one step of one domain is enough.
    compiled = (common[0], *SHORT, "--domains=Task92_Two", "--steps_per_epoch=1")
    results = session(
        "u2net_tf.train",
        {"compiled": (*compiled, f"--model_dir={work / 'one'}", "--max_epochs=1")},
    )
    results |= session(
        "u2net_tf.train",
        {
            "first": (*common, *SHORT, "--max_epochs=1"),
            "second": (f"--flagfile={work / 'model' / 'flags.txt'}", "--max_epochs=2"),
            "again": (*common, *SHORT, "--max_epochs=2"),
            "other network": (*common, *SHORT, "--base_channels=3"),
            "other domains": (*common, *SHORT, "--domains=Task92_Two"),
            "unknown domain": (*common, *SHORT, "--domains=Task93"),
            "no shards": (common[1], f"--data_dir={work / 'no'}", *SHORT),
            "two pools": (*common, "--pools=1,1"),
            "patch of nothing": (*common, *SHORT, "--patch_size=0,8,8"),
            "patch": (*common, *SHORT, "--patch_size=8,8,7"),
            "rule": (*common, *SHORT, "--min_learning_rate=0"),
            "shares": (*common, *SHORT, "--smallest_share=0.9"),
        },
        execution="eager",
    )
    return work / "model", results


class TestTrain:
    def test_reports_what_it_wrote(self, trained):
        model_dir, results = trained
        assert results["first"]["status"] == 0
        output = results["first"]["stdout"]
        assert output.startswith(
            f"{model_dir}: 3 steps in 1 epoch (ended by --max_epochs; "
        )
        assert f"tensorboard --logdir={model_dir / 'tensorboard'}" in output

    def test_trains_with_xla(self, trained):
        result = trained[1]["compiled"]
        assert result["status"] == 0
        assert "1 step in 1 epoch" in result["stdout"]

    def test_resumes_with_the_flags_it_wrote(self, trained):
        model_dir, results = trained
        assert results["second"]["status"] == 0
        assert results["second"]["stdout"].startswith(
            f"{model_dir}: 6 steps in 2 epochs"
        )
        with (model_dir / "training.csv").open(newline="") as stream:
            assert [row["step"] for row in csv.DictReader(stream)] == ["3", "6"]

    def test_rerun_has_nothing_to_do(self, trained):
        model_dir, results = trained
        assert results["again"]["status"] == 0
        assert results["again"]["stdout"].startswith(
            f"{model_dir}: 6 steps in 2 epochs"
        )

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            (
                "other network",
                "expected base_channels 3. Received: 2. Use another --mod",
            ),
            (
                "other domains",
                "expected domains ('Task92_Two',). Received: ('Task91_One",
            ),
            ("unknown domain", "expected one of Task91_One, Task92_Two"),
            ("no shards", "no/plan.json: expected a plan"),
            (
                "two pools",
                "--pools: expected three integers z,y,x of at least 0. Received",
            ),
            (
                "patch of nothing",
                "--patch_size: expected three integers z,y,x of ",
            ),
            ("patch", "patch_size: expected sizes divisible by 2**pools, with poo"),
            (
                "rule",
                "--min_learning_rate: expected a number above 0. Received: 0.0",
            ),
            (
                "shares",
                "--smallest_share + --foreground_share: expected at most 1. Rec",
            ),
        ],
    )
    def test_wrong_input_is_one_message(self, trained, line, words):
        status = trained[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status


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
            "surfaces": (model, out, "--surface_tolerance_mm=1.5"),
            "overlap": (model, out, *two, "--overlap=0.25", "--batch_size=3"),
            "validation": (model, "--split=validation"),
            "raw_dir": (model, f"--raw_dir={work / 'no'}"),
            "nothing": (model, *two, "--split=validation"),
            "unknown domain": (model, "--domains=Task93"),
            "no model": (f"--model_dir={work / 'no'}",),
        },
        execution="plain",
    )
    return work, results


class TestEvaluate:
    def test_prints_the_table_and_reports_what_it_wrote(self, evaluated, trained):
        work, results = evaluated
        assert results["first"]["status"] == 0
        *table, last = results["first"]["stdout"].splitlines()
        assert [line.split()[:2] for line in table[2:5]] == [
            ["Task91_One", "organ"],
            ["Task92_Two", "rim"],
            ["Task92_Two", "core"],
        ]
        assert last == (
            f"2 test cases scored with {trained[0] / 'checkpoints' / 'step-6'}: "
            f"dice.csv, summary.json and predictions in {work / 'out'}"
        )

    def test_writes_a_label_map_per_case(self, evaluated, tiny_data):
        work, _ = evaluated
        for name, case in (("Task91_One", "one_5"), ("Task92_Two", "two_2")):
            path = work / "out" / "predictions" / name / f"{case}.nii.gz"
            label = tiny_data.raw_dir / name / "labelsTr" / f"{case}.nii.gz"
            assert nib.load(path).shape == nib.load(label).shape

    def test_rerun_predicts_nothing(self, evaluated):
        _, results = evaluated
        assert results["first"]["windows"] == [{"overlap": 0.5, "batch_size": 1}] * 2
        assert results["again"]["windows"] == []
        assert results["again"]["stdout"] == results["first"]["stdout"]

    def test_surfaces_are_a_part_of_the_table(self, evaluated):
        _, results = evaluated
        assert results["surfaces"]["windows"] == []
        head = results["surfaces"]["stdout"].splitlines()[0]
        assert "HD95 mm    surface Dice % at 1.5 mm" in head
        assert "HD95" not in results["first"]["stdout"]

    def test_domains_overlap_and_batch_size(self, evaluated):
        work, results = evaluated
        assert results["overlap"]["windows"] == [{"overlap": 0.25, "batch_size": 3}]
        # The last run in this folder evaluated one domain.
        summary = json.loads((work / "out" / "summary.json").read_text())
        assert {row["domain"] for row in summary["classes"]} == {"Task92_Two"}
        assert summary["split"] == "test"
        rows = (work / "out" / "dice.csv").read_text().splitlines()
        assert [row.split(",")[:3] for row in rows[1:]] == [
            ["Task92_Two", "two_2", "rim"],
            ["Task92_Two", "two_2", "core"],
        ]

    def test_split_and_its_default_folder(self, evaluated, trained):
        assert len(evaluated[1]["validation"]["windows"]) == 2
        summary = json.loads((trained[0] / "validation" / "summary.json").read_text())
        assert [row["num_cases"] for row in summary["classes"]] == [2, 0, 0]

    def test_score_gives_the_same(self, evaluated, trained, tiny_data, tmp_path):
        """Label maps of `evaluate` are scored as `evaluate` does."""
        plan = tmp_path / "plan.json"
        plan.write_text(plan_to_json(tiny_data.plan), encoding="utf-8")
        folder = trained[0] / "validation"
        one = tmp_path / "one"
        one.mkdir()
        shutil.copy(folder / "predictions" / "Task91_One" / "one_3.nii.gz", one)
        options = (f"--plan={plan}", "--split=validation", "--domains=Task91_One")
        results = session(
            "u2net_tf.score",
            {
                name: (*options, f"--predictions={given}", f"--output_dir={output}")
                for name, given, output in (
                    ("all", folder / "predictions", tmp_path / "all"),
                    ("one", one, tmp_path / "of_one"),
                )
            },
        )
        assert results["all"]["status"] == 0
        *table, last = results["all"]["stdout"].splitlines()
        assert table[2].split()[:2] == ["Task91_One", "organ"]
        words = "label maps scored: dice.csv and summary.json in"
        assert last == f"2 {words} {tmp_path / 'all'}"
        expected = (folder / "dice.csv").read_text()
        assert (tmp_path / "all" / "dice.csv").read_text() == expected
        compared = session(
            "u2net_tf.compare",
            {
                name: (f"--baseline={folder}", f"--candidate={tmp_path / 'all'}", *rest)
                for name, rest in (
                    ("table", ["--domains=Task91_One"]),
                    ("picture", [f"--output={tmp_path / 'c.png'}"]),
                    ("bad", [f"--output={tmp_path / 'c.pdf'}"]),
                    ("file", [f"--output={plan / 'c.png'}"]),
                )
            },
        )
        assert compared["table"]["status"] == 0
        row = compared["table"]["stdout"].splitlines()[5].split()
        assert row[:3] == ["Task91_One", "organ", "2"]
        assert row[-3:] == ["0", "0", "–"]
        wrote = f"wrote {tmp_path / 'c.png'}"
        assert compared["picture"]["stdout"].splitlines()[-1] == wrote
        assert (tmp_path / "c.png").is_file()
        assert "--output: expected FILE.png" in compared["bad"]["status"]
        # Before scores are compared.
        assert "a file in place of one" in compared["file"]["status"]
        assert compared["bad"]["stdout"] == compared["file"]["stdout"] == ""
        assert results["one"]["status"] == (
            "error: 1 of 2 cases could not be used:\n  Task91_One/one_4: "
            f"{one}: expected a label map of one_4. Received: none"
        )

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("raw_dir", "no/Task91_One/dataset.json: expected a file"),
            ("nothing", "--split: expected cases in 'validation'. Received: none"),
            (
                "unknown domain",
                "domain 'Task93': expected one of Task91_One, Task92_Two. ",
            ),
            ("no model", "no: expected a model written by `python -m u2net_tf.train`"),
        ],
    )
    def test_wrong_input_is_one_message(self, evaluated, line, words):
        status = evaluated[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status


@pytest.fixture(scope="module")
def predicted(trained, tiny_data, tmp_path_factory):
    """The folder of the predictions, and the result of each command line."""
    work = tmp_path_factory.mktemp("predicted")
    scans = tiny_data.raw_dir / "Task92_Two" / "imagesTr"
    (work / "some").mkdir()
    some = work / "some" / "two_0.nii.gz"
    some.write_bytes((scans / "two_0.nii.gz").read_bytes())
    (work / "file").touch()
    # Represents a label map that somebody drew by hand.
    precious = work / "precious" / "two_0.nii.gz"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    common = (f"--model_dir={trained[0]}", "--domain=Task92_Two")
    output = f"--output={work / 'out'}"
    probable = f"--output={work / 'probable'}"
    parts = f"--output={work / 'parts'}"
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
            "part 0": (*common, f"--input={scans}", parts, "--num_parts=2",
                       "--part_id=0"),
            "part 1": (*common, f"--input={scans}", parts, "--num_parts=2",
                       "--part_id=1"),
            "part 3 of 4": (*common, f"--input={scans}", parts, "--num_parts=4",
                            "--part_id=3"),
            "all parts": (*common, f"--input={scans}", parts),
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
        execution="plain",
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

    def test_skips_existing_label_maps(self, predicted, trained):
        work, results = predicted
        checkpoint = trained[0] / "checkpoints" / "step-6"
        rest = f"of Task92_Two in {work / 'out'}, predicted by {checkpoint}"
        assert results["one"]["stdout"] == f"1 label map {rest}\n"
        assert results["all"]["stdout"] == f"3 label maps {rest} (1 already existed)\n"
        assert (
            results["again"]["stdout"] == f"3 label maps {rest} (3 already existed)\n"
        )
        counts = [len(results[line]["windows"]) for line in ("one", "all", "again")]
        assert counts == [1, 2, 0]

    def test_parts_predict_all_scans_once(self, predicted):
        work, results = predicted
        lines = ("part 0", "part 1", "part 3 of 4", "all parts")
        assert [len(results[line]["windows"]) for line in lines] == [2, 1, 0, 0]
        starts = ("2 label maps", "1 label map ", "0 label maps", "3 label maps")
        for line, start in zip(lines, starts, strict=True):
            assert results[line]["status"] == 0
            assert results[line]["stdout"].startswith(start)
        assert results["all parts"]["stdout"].endswith(" (3 already existed)\n")
        for path in sorted((work / "out").glob("*.nii.gz")):
            one, other = (nib.load(p) for p in (path, work / "parts" / path.name))
            np.testing.assert_array_equal(one.dataobj, other.dataobj)

    def test_overwrite_predicts_again(self, predicted):
        work, results = predicted
        assert len(results["overwrite"]["windows"]) == 1
        assert "already" not in results["overwrite"]["stdout"]

    def test_predicts_again_with_other_settings(self, predicted):
        work, results = predicted
        assert results["edges"]["windows"] == [{"overlap": 0.75, "batch_size": 1}]

    def test_overlap_and_batch_size(self, predicted):
        results = predicted[1]
        assert results["one"]["windows"] == [{"overlap": 0.5, "batch_size": 1}]
        assert results["options"]["windows"] == [{"overlap": 0.25, "batch_size": 2}]

    def test_missing_probabilities_are_predicted(self, predicted):
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
            ("precious", "or one that was predicted here. Received: a different file"),
            ("no model", "expected a model written by `python -m u2net_tf.train`"),
            ("no input", "--input: "),
            (
                "three inputs",
                "--input: expected 2 paths, one per modality. Received: 3",
            ),
            ("one modality", "one_0.nii.gz: expected 2 modalities. Received: 1"),
            ("output is a file", "--output: expected a folder. Received: the file"),
            ("over the scans", "which would be overwritten"),
        ],
    )
    def test_wrong_input_is_one_message(self, predicted, line, words):
        status = predicted[1][line]["status"]
        assert status.startswith("error: ")
        assert words in status


def test_the_size_of_a_part_is_logged(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").touch()
    values = {"model": ("m",), "domain": toy.ONE.name, "output": "out"}
    values |= {"input": (str(tmp_path),), "num_parts": 2}
    found = predict._find_scans(
        PredictConfig.from_flat(values | {"part_id": 1}), toy.ONE
    )
    assert [scan.name for scan in found.scans] == ["b"]
    assert caplog.messages == ["part 1 (of 0 to 1): 1 of 3 scans"]


def test_predict_passes_its_settings_on(monkeypatch, tiny_data, tmp_path, capsys):
    """Settings without a visible result, and the report of edited label maps."""
    passed = {}
    spec = types.SimpleNamespace(plan=tiny_data.plan)
    predictor = types.SimpleNamespace(spec=spec, plan=spec.plan, checkpoint="step-3")

    def predict_scans(*arguments, **options):
        passed.update(options)
        skipped = {"two_0": InputError("a file", expected="x", received="y")}
        return label_maps.Report(
            num_written=3, num_existing=2, num_edited=1, skipped=skipped
        )

    def open_ensemble(paths, settings, **options):
        passed.update(options, paths=paths, settings=settings)
        return types.SimpleNamespace(predictor=lambda domain: predictor)

    monkeypatch.setattr(opening, "open_ensemble", open_ensemble)
    monkeypatch.setattr(label_maps, "predict_scans", predict_scans)
    scan = tiny_data.raw_dir / "Task92_Two" / "imagesTr" / "two_0.nii.gz"
    values = {"model": ("m", "n"), "domain": "Task92_Two", "output": "out"}
    values |= {"runtime": "onnxruntime"}
    config = PredictConfig.from_flat(
        values
        | {"input": (str(scan),), "num_workers": 3, "overwrite": True}
        | {"log_every_seconds": 7.0, "save_probabilities": True, "preview": True}
        | {"output_format": "seg_nrrd", "volumes_csv": "volumes.csv"}
    )
    with pytest.raises(SystemExit) as stopped:
        predict.main(config)
    assert passed["paths"] == ("m", "n")
    assert passed["settings"] is config.windows
    assert passed["runtime"] == "onnxruntime"
    assert passed["reading"] is config.reading
    assert passed["reading"].num_workers == 3
    assert passed["overwrite"] is True
    assert passed["save_probabilities"] is True
    assert passed["preview"] is True
    assert passed["output_format"] == "seg_nrrd"
    assert passed["volumes_csv"] == pathlib.Path("volumes.csv")
    assert passed["progress"].func is command.progress_bar
    assert passed["progress"].keywords == {"log_every_seconds": 7.0}
    assert capsys.readouterr().out == (
        "5 label maps of Task92_Two in out, predicted by step-3 (2 already existed, "
        "including 1 edited file); volumes in volumes.csv\n"
    )
    assert stopped.value.code == (
        "error: 1 of 1 scan could not be used:\n"
        "  two_0: a file: expected x. Received: y"
    )
