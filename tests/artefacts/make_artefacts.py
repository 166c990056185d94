"""Writes a file of each format with this version of the project.

    python tests/artefacts/make_artefacts.py        (or: make artefacts)

Runs the commands in a temporary folder, as a user would, and copies the folder to
`tests/artefacts/VERSION`, where VERSION is that of the installed package. The files of
a release are never replaced. `test_artefacts.py` loads the files of every release.
Paths are relative, except those of the scans in survey, plan and manifest.

raw/          scans of three domains, and the dataset.json of each
survey/       survey.json, survey.csv
plan.json     with merged labels and a validation split
upstream.json a plan with the preprocessing of the published code
shards/       one domain as float16, one as gzip-compressed float32
models/       separable, series, parallel, plain (shared, float16), independent (a
              folder per domain), adapted (a domain added to separable), composed
              (adapted without its first domain)
predictions/  label map and probabilities by the separable model
evaluation/   scores and label maps by the separable model
exports/      adapter files, certificate, model file and ONNX file; see `exports.py`
expected/     logits.npz: logits of `probe` for each MODEL/CHECKPOINT/DOMAIN;
              scores.json: Dice of the test cases for each model;
              checkpoints.json: name of the checkpoint for each MODEL/CHECKPOINT;
              continued.json: the row of training.csv that is added by one more epoch
              of four steps
release.json  models and flags for the tests of this release
files.json    SHA-256 and modification time (ns) of every file: git does not keep the
              time, by which caches recognize unchanged files
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import exports
import nibabel as nib
import numpy as np

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]
ONE, TWO, THREE = "Task91_One", "Task92_Two", "Task93_Three"
# Modalities and raw label values of each domain, background first.
DOMAINS = {
    ONE: (("CT",), (0, 1)),
    TWO: (("T2", "ADC"), (0, 4, 7, 2)),
    THREE: (("MRI",), (0, 1, 2)),
}
NUM_CASES = 5
MODELS = {
    "separable": (
        "--adapter=separable",
        # The learning rate is reduced after the second epoch.
        "--patience_epochs=1",
        "--plateau_min_delta=100",
        "--elastic_probability=0.5",
        "--rotation_probability=0.5",
        "--gamma_probability=0.5",
    ),
    # Without validation, the best checkpoint is chosen by the loss.
    "series": ("--adapter=series", "--validate_every_epochs=0"),
    "parallel": ("--adapter=parallel", "--loss_window_epochs=2"),
    "plain": ("--adapter=none", "--last_decoder_kernel=3", "--precision=mixed_float16"),
}
NETWORK = (
    "--pools=1,0,1",
    "--base_channels=2",
    "--patch_size=8,8,8",
    "--batch_size=2",
    "--learning_rate=0.01",
)
EPOCHS = 2
# Few steps, so that rounding differences between machines stay small.
CONTINUED = ("--steps_per_epoch=4", f"--max_epochs={EPOCHS + 1}")
CONTINUED += ("--validate_every_epochs=0",)
SHORT = ("--steps_per_epoch=100", f"--max_epochs={EPOCHS}", "--validate_every_epochs=1")
SHORT += ("--eval_cases=1", "--keep=1", "--distribution=none")


def run(module: str, *arguments: str, folder: pathlib.Path) -> None:
    """Prints a command and runs it in a folder."""
    print("$ python -m", module, *arguments, flush=True)
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )


def write_scans(raw_dir: pathlib.Path) -> None:
    """Writes small scans in which every class is a box with a distinct brightness."""
    for name, (modalities, values) in DOMAINS.items():
        prefix = name.partition("_")[2].lower()
        rows = []
        for index in range(NUM_CASES):
            generator = np.random.default_rng([index, len(modalities), len(values)])
            shape = (12 + index, 12, 10)
            labels = np.zeros(shape, np.uint8)
            for number, value in enumerate(values[1:]):
                labels[3 + 2 * number : 9 + index // 2, 3:9, 2:8] = value
            image = generator.integers(90, 110, (*shape, len(modalities)), np.int16)
            for channel in range(len(modalities)):
                image[..., channel] += (40 + 20 * channel) * labels
            if len(modalities) == 1:
                image = image[..., 0]
            affine = np.diag([-1.0, -1.1, 1.2 + 0.1 * index, 1.0])
            row = {}
            for kind, array in (("image", image), ("label", labels)):
                path = raw_dir / name / f"{kind}sTr" / f"{prefix}_{index}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, affine), path)
                row[kind] = f"./{path.relative_to(raw_dir / name)}"
            rows.append(row)
        content = {
            "name": name,
            "modality": {str(i): modality for i, modality in enumerate(modalities)},
            "labels": {str(value): f"value {value}" for value in values},
            "training": rows,
        }
        path = raw_dir / name / "dataset.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


PLAN = ("--validation_fraction=0.25", f"--merge_labels={TWO}:rim=4+7")
CONVERT = {TWO: ("--compression=gzip", "--image_dtype=float32")}


def prepare_data(folder: pathlib.Path) -> None:
    """Writes scans and converts them to shards."""
    write_scans(folder / "raw")
    run("data_prep.survey", "--raw_dir=raw", "--output_dir=survey", folder=folder)
    plan = ("--survey=survey", *PLAN)
    run("data_prep.plan", *plan, "--output=plan.json", folder=folder)
    upstream = f"--flagfile={ROOT / 'data_prep/flagfiles/upstream.flags'}"
    run("data_prep.plan", *plan, upstream, "--output=upstream.json", folder=folder)
    shards = ("--plan=plan.json", "--data_dir=shards")
    for name in DOMAINS:
        options = (f"--domains={name}", *CONVERT.get(name, ()))
        run("data_prep.convert", *shards, *options, folder=folder)


def training_commands() -> dict[str, tuple[str, ...]]:
    """Returns the command lines that train each model: module, then flags."""
    data = "--data_dir=shards"
    joint = (data, f"--domains={ONE},{TWO}", *NETWORK, *SHORT)
    commands = {
        name: ("u2net_tf.train", *joint, *options, f"--model_dir=models/{name}")
        for name, options in MODELS.items()
    }
    commands["independent"] = (
        "u2net_tf.train",
        *joint,
        "--adapter=none",
        "--independent",
        "--model_dir=models/independent",
    )
    commands["adapted"] = (
        "u2net_tf.adapt",
        data,
        *SHORT,
        "--batch_size=2",
        "--from=models/separable",
        f"--domain={THREE}",
        "--model_dir=models/adapted",
    )
    return commands


def model_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folders with checkpoints by their path below `models`."""
    models = folder / "models"
    found = sorted(path.parent for path in models.rglob("checkpoints"))
    return {path.relative_to(models).as_posix(): path for path in found}


def probe(size: tuple[int, int, int], num_modalities: int) -> np.ndarray:
    """Returns a patch that never changes, (1, *size, num_modalities) float32."""
    count = int(np.prod(size)) * num_modalities
    return (
        np.sin(np.arange(count, dtype=np.float64) ** 1.5)
        .reshape(1, *size, num_modalities)
        .astype(np.float32)
    )


def compute_logits(
    model_dir: pathlib.Path, checkpoint: str
) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the name of a checkpoint and its logits of `probe` by domain."""
    from u2net_tf.models.loading import load_network

    spec, network, path = load_network(model_dir, checkpoint=checkpoint)
    return pathlib.Path(path).name, {
        name: network(
            probe(spec.network_patch_size(index), network.num_modalities[index]),
            domain=index,
            training=False,
        ).numpy()
        for index, name in enumerate(spec.plan.names)
    }


def checkpoints_of(model: str) -> tuple[str, ...]:
    """Returns valid values of --checkpoint; composed models have no best one."""
    return ("newest",) if model == "composed" else ("newest", "best")


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def continue_training(
    folder: pathlib.Path, commands: dict[str, tuple[str, ...]]
) -> dict:
    """Trains every model for one more epoch in a copy; returns the new rows."""
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch) / "work"
        shutil.copytree(folder, work)
        # The adapted model first, before its parent changes.
        for module, *arguments in reversed(commands.values()):
            run(module, *arguments, *CONTINUED, folder=work)
        for name, model_dir in model_folders(work).items():
            if (model_dir / "training.csv").is_file():
                rows[name] = rows_of(model_dir / "training.csv")[-1]
    return rows


def score(folder: pathlib.Path) -> dict[str, list[dict[str, str]]]:
    """Evaluates every model; returns the rows of dice.csv."""
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in [*training_commands(), "composed"]:
            output = pathlib.Path(scratch) / name
            arguments = (f"--model_dir=models/{name}", f"--output_dir={output}")
            run("u2net_tf.evaluate", *arguments, folder=folder)
            rows[name] = rows_of(output / "dice.csv")
    return rows


def make(folder: pathlib.Path) -> None:
    """Runs all commands that write files."""
    prepare_data(folder)
    commands = training_commands()
    for module, *arguments in commands.values():
        run(module, *arguments, folder=folder)
    compose = ("--models=models/adapted", f"--remove={ONE}")
    compose += ("--model_dir=models/composed",)
    run("u2net_tf.compose", *compose, folder=folder)
    chosen = ("--model_dir=models/separable", f"--domain={TWO}")
    written = ("--save_probabilities", "--output=predictions")
    scan = f"--input=raw/{TWO}/imagesTr/two_0.nii.gz"
    run("u2net_tf.predict", *chosen, scan, *written, folder=folder)
    run(
        "u2net_tf.evaluate",
        chosen[0],
        "--output_dir=evaluation",
        folder=folder,
    )
    for module, *arguments in exports.commands(packed=TWO, adapted=THREE):
        run(module, *arguments, folder=folder)
    write_expected(folder, commands)
    release = {
        "models": [*commands, "composed"],
        "domains": list(DOMAINS),
        "plan_flags": PLAN,
        "convert_flags": CONVERT,
        "continued_flags": CONTINUED,
    }
    write_json(folder / "release.json", release)
    write_json(folder / "files.json", list_files(folder))


def write_json(path: pathlib.Path, content: object) -> None:
    """Writes a JSON file with a line per item."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def list_files(folder: pathlib.Path) -> dict[str, tuple[str, int]]:
    """Returns SHA-256 and modification time (ns) of every file by relative path."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_expected(folder: pathlib.Path, commands: dict[str, tuple[str, ...]]) -> None:
    """Writes the expected outputs of the models."""
    expected = folder / "expected"
    expected.mkdir()
    logits, checkpoints = {}, {}
    for model, model_dir in model_folders(folder).items():
        for checkpoint in checkpoints_of(model):
            key = f"{model}/{checkpoint}"
            checkpoints[key], outputs = compute_logits(model_dir, checkpoint)
            for domain, values in outputs.items():
                logits[f"{key}/{domain}"] = values
    np.savez_compressed(expected / "logits.npz", **logits)
    write_json(expected / "checkpoints.json", checkpoints)
    write_json(expected / "scores.json", score(folder))
    write_json(expected / "continued.json", continue_training(folder, commands))


def main() -> None:
    """Writes the folder of this version, completely or not at all."""
    folder = FOLDER / importlib.metadata.version("u2net-tf")
    if folder.exists():
        sys.exit(
            f"error: {folder} already exists; the files of a release are not replaced"
        )
    with tempfile.TemporaryDirectory(prefix="artefacts-") as scratch:
        unfinished = pathlib.Path(scratch) / folder.name
        unfinished.mkdir()
        make(unfinished)
        shutil.copytree(unfinished, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
