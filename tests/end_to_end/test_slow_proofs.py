"""The complete pipeline, which takes minutes. Run by `make test-slow`."""

import json
import pathlib
import shutil

import pytest

from u2net_tf.plan.plan_file import load_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_demonstration_runs_twice_and_refuses_other_scans(tmp_path, run_command):
    output = tmp_path / "demo"
    first = run_command("tools.demo", output_dir=output, max_epochs=1)
    for name in ("Task01_PhantomCT", "Task02_PhantomMR", "Task03_PhantomProstate"):
        assert name in first.stdout
        assert list((output / "test" / "predictions" / name).glob("*.nii.gz"))
    assert (output / "overlays.png").stat().st_size > 10_000
    assert (output / "curves.png").stat().st_size > 10_000
    again = run_command("tools.demo", output_dir=output, max_epochs=1)
    assert "already converted" in again.stdout
    other = tmp_path / "other"
    shutil.copytree(output / "raw", other)
    refused = run_command("tools.demo", status=1, output_dir=output, raw_dir=other)
    assert "expected a plan of the scans in" in refused.stderr


def test_hippocampus_is_learned(real_data, tmp_path, run_command):
    """Trains for 300 steps; 2,800 reach a mean Dice of 0.86, see docs/results.md."""
    name = "Task04_Hippocampus"
    run_command(
        "data_prep.survey", raw_dir=real_data, domains=name, output_dir=tmp_path
    )
    run_command("data_prep.plan", survey=tmp_path, output=tmp_path / "plan.json")
    plan = load_plan(tmp_path / "plan.json")
    assert len(plan.domains[0].test) >= 40
    run_command(
        "data_prep.convert", plan=tmp_path / "plan.json", data_dir=tmp_path / "data"
    )
    run_command(
        "u2net_tf.train",
        data_dir=tmp_path / "data",
        model_dir=tmp_path / "model",
        batch_size=2,
        learning_rate=1e-3,
        steps_per_epoch=100,
        max_epochs=3,
        validate_every_epochs=0,
    )
    run_command("u2net_tf.evaluate", model_dir=tmp_path / "model")
    summary = json.loads((tmp_path / "model" / "test" / "summary.json").read_text())
    assert summary["mean_dice"] > 0.6


def test_adapt_and_compose_import_what_they_need(tmp_path, run_command):
    """Other tests fork them from a process that has already imported most packages."""
    release = pathlib.Path(__file__).parents[1] / "artefacts" / "0.1.0"
    flags = {
        "from": release / "models" / "separable",
        "domain": "Task93_Three",
        "data_dir": release / "shards",
        "model_dir": tmp_path / "adapted",
        "batch_size": 2,
        "steps_per_epoch": 2,
        "max_epochs": 1,
        "validate_every_epochs": 0,
    }
    run_command("u2net_tf.adapt", **flags)
    done = run_command(
        "u2net_tf.compose",
        models=tmp_path / "adapted",
        remove="Task91_One",
        model_dir=tmp_path / "composed",
    )
    assert done.stdout.count("identical") == 2
