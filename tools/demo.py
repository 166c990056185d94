"""Runs the complete pipeline, from scans to a trained network and label maps.

    python -m tools.demo --output_dir=demo                   # on synthetic scans
    python -m tools.demo --output_dir=demo --raw_dir=DIR     # on your scans

Trains a network that is far too small for good results. With your own scans, it also
prints the commands that train a full network. Every command is printed before it runs,
so that it can be repeated with other flags. If interrupted, the demonstration resumes
where it left off when rerun. The pictures need matplotlib.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from pydantic import Field

from u2net_tf import command, stop_signals
from u2net_tf.config.base import Config

_FLAGFILE = "demo"
_PHANTOMS_PER_DOMAIN = 20


class DemoConfig(Config):
    """Settings of `tools.demo`."""

    output_dir: str = Field("demo", description="Folder for all results.")
    raw_dir: str | None = Field(
        None,
        description="Your scans, one folder per domain; synthetic ones if not given.",
    )
    max_epochs: int | None = Field(
        None, ge=1, description="Number of epochs; that of the flagfile if not given."
    )


def main(config: DemoConfig) -> None:
    """Runs every command in turn."""
    started = time.monotonic()
    output = pathlib.Path(config.output_dir)
    raw_dir, advice = config.raw_dir, ""
    if raw_dir is not None:
        advice = _advice(pathlib.Path(raw_dir), output)
        print(advice)
    else:
        raw_dir = str(output / "raw")
        _run("tools.make_phantoms", output_dir=raw_dir, cases=_PHANTOMS_PER_DOMAIN)
    plan_path = _prepare(pathlib.Path(raw_dir), output)
    table = _train_and_evaluate(output, config.max_epochs)
    plan = json.loads(plan_path.read_text(encoding="utf-8"))
    _predict_one(plan["domains"][0], output)
    pictures = _draw(plan, output)
    minutes = (time.monotonic() - started) / 60
    print(f"\n{table}\n\n{minutes:.1f} minutes. Results to view:")
    for picture in pictures:
        print(f"  {picture}")
    print(f"  {_tensorboard()} --logdir={output / 'model' / 'tensorboard'}")
    if advice:
        print(f"\n{advice}")


def _advice(raw_dir: pathlib.Path, output: pathlib.Path) -> str:
    """Returns a note on the toy network and the commands that train a full one."""
    from u2net_tf.volumes import msd

    # The paper's universal network for several domains, an independent one for one.
    several = len(msd.find_datasets(raw_dir)) > 1
    folder = output / "full"
    lines = (
        _command_line(
            "data_prep.plan",
            survey=output / "survey",
            output=folder / "plan.json",
            validation_fraction=0.2,
        ),
        _command_line(
            "data_prep.convert", plan=folder / "plan.json", data_dir=folder / "shards"
        ),
        _command_line(
            "u2net_tf.train",
            flagfile="universal" if several else "independent",
            data_dir=folder / "shards",
            model_dir=folder / "model",
        ),
        _command_line(
            "u2net_tf.evaluate", model_dir=folder / "model", output_dir=folder / "test"
        ),
    )
    return "\n".join(
        [
            "This demonstration trains a toy network for a few minutes. Its Dice does "
            "not show what can be",
            "reached on these scans. To train a full network on a GPU with 16 GB, run "
            "after the survey:",
            *(f"  python -m {shlex.join(line)}" for line in lines),
        ]
    )


def _prepare(raw_dir: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Converts scans to shards and returns the path of the plan."""
    plan_path = output / "plan.json"
    _check_plan(plan_path, raw_dir)
    _run("data_prep.survey", raw_dir=raw_dir, output_dir=output / "survey")
    if not plan_path.is_file():
        _run(
            "data_prep.plan",
            survey=output / "survey",
            output=plan_path,
            unknown_labels="background",
            exclude_faulty=True,
        )
    shards = output / "shards"
    _run("data_prep.convert", plan=plan_path, data_dir=shards)
    _run("data_prep.verify", data_dir=shards)
    return plan_path


def _check_plan(plan_path: pathlib.Path, raw_dir: pathlib.Path) -> None:
    """Refuses an output folder that belongs to a demonstration on other scans."""
    if not plan_path.is_file():
        return
    plan = json.loads(plan_path.read_text(encoding="utf-8"))
    for domain in plan["domains"]:
        folder = pathlib.Path(domain["raw_dir"])
        # Either may contain a symbolic link, and a domain may be one to elsewhere.
        if raw_dir.resolve() not in (folder.resolve(), folder.parent.resolve()):
            raise command.InputError(
                f"`output_dir`: {plan_path}",
                expected=f"a plan of the scans in {raw_dir}",
                received=f"a plan of {folder}",
                hint="Choose a different folder (make demo DEMO=...)",
            )


def _train_and_evaluate(output: pathlib.Path, max_epochs: int | None) -> str:
    """Trains, evaluates, and returns the output of the evaluation."""
    model = output / "model"
    limit = {} if max_epochs is None else {"max_epochs": max_epochs}
    _run(
        "u2net_tf.train",
        flagfile=_FLAGFILE,
        data_dir=output / "shards",
        model_dir=model,
        **limit,
    )
    text = _run("u2net_tf.evaluate", model_dir=model, output_dir=output / "test")
    return text.strip()


def _predict_one(domain: dict, output: pathlib.Path) -> None:
    """Predicts one raw scan from nothing but the model."""
    from u2net_tf.volumes import msd

    name = [*domain["test"], *domain["train"]][0]
    case = msd.read_dataset(domain["raw_dir"]).case(name)
    _run(
        "u2net_tf.predict",
        model_dir=output / "model",
        domain=domain["name"],
        input=[_relative_to_cwd(path) for path in case.image_paths],
        output=output / "predictions" / domain["name"],
    )


def _draw(plan: dict, output: pathlib.Path) -> list[pathlib.Path]:
    overlays, curves = output / "overlays.png", output / "curves.png"
    domains = [domain for domain in plan["domains"] if domain["test"]]
    raw_dirs = [_relative_to_cwd(pathlib.Path(domain["raw_dir"])) for domain in domains]
    _run(
        "u2net_tf.draw_overlays",
        image=[f"{raw_dir}/imagesTr" for raw_dir in raw_dirs],
        reference=[f"{raw_dir}/labelsTr" for raw_dir in raw_dirs],
        prediction=[
            output / "test" / "predictions" / domain["name"] for domain in domains
        ],
        plan=output / "plan.json",
        cases=2,
        output=overlays,
    )
    _run("u2net_tf.plot_training", model_dir=output / "model", output=curves)
    return [overlays, curves]


def _run(module: str, **values: object) -> str:
    """Prints and runs a command, and prints and returns its standard output.

    A stop signal takes effect here once the command has ended, since training saves its
    state first.

    Raises:
      StoppedError: if it fails.
    """
    command_line = _command_line(module, **values)
    print("\n$ python -m", shlex.join(command_line), flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *command_line],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )

    def forward(number: signal.Signals, ends: bool) -> None:
        del ends
        # The terminal sends Ctrl-C to the command, too.
        if number != signal.SIGINT:
            process.send_signal(number)

    lines = []
    assert process.stdout is not None  # a pipe, as requested above
    with stop_signals.DeferredSignals(forward) as signals:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        status = process.wait()
    if signals.received is not None:
        signal.raise_signal(signals.received)
    if status:
        raise command.StoppedError(f"{module} failed; the message is above")
    return "".join(lines)


def _command_line(module: str, **values: object) -> list[str]:
    arguments = []
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        arguments += [
            f"--{name}" if item is True else f"--{name}={item}" for item in items
        ]
    return [module, *arguments]


def _tensorboard() -> pathlib.Path:
    """Returns the path of TensorBoard, relative to the current folder if below it."""
    path = pathlib.Path(sys.executable).with_name("tensorboard")
    return _relative_to_cwd(path) if path.is_file() else pathlib.Path("tensorboard")


def _relative_to_cwd(path: pathlib.Path) -> pathlib.Path:
    """Returns an absolute path relative to the current folder if it is below it."""
    folder = pathlib.Path.cwd()
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def run() -> None:
    """Runs the command."""
    command.start(main, DemoConfig)


if __name__ == "__main__":
    run()
