"""Train and adapt with twenty signals at random moments. Run by `make test-slow`."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from u2net_tf.models.checkpoint_reading import CheckpointReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = pathlib.Path(__file__).parents[2]
NUM_SIGNALS = 20
# For a network that is traced quickly; an epoch ends within a pass over the cases.
FLAGS = {
    "learning_rate": 0.01,
    "noise_probability": 0.5,
    "steps_per_epoch": 40,
    "max_epochs": 60,
    "validate_every_epochs": 4,
    "eval_cases": 1,
    "keep": 1,
}
NETWORK = {"adapter": "none", "pools": "1,0,1", "base_channels": 2}
CLOCKS = ("seconds_per_step", "input_wait_share")


def command(module, model_dir, **flags):
    flags = {**FLAGS, **flags, "model_dir": model_dir}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", module, *arguments]


def run(arguments, log, number=None, *, after_step=False, seconds=0.0):
    """Runs a command and sends it a signal after a delay, if it still runs.

    Args:
      arguments: the command line.
      log: file for its output.
      number: the signal; None to let it finish.
      after_step: whether the delay starts at the first step instead of the launch.
      seconds: the delay.
    """
    with log.open("w") as stream:
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            while after_step and process.poll() is None:
                if "including its first run" in log.read_text():
                    break
                time.sleep(0.01)
            process.wait(seconds if number else None)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.wait()
        finally:
            process.kill()
    output = log.read_text()
    assert "Traceback" not in output, output
    return process.returncode, output


def contents(model_dir):
    """Returns all results of a run but times."""
    names = sorted(path.name for path in (model_dir / "checkpoints").iterdir())
    newest = max(int(n[5:].split(".")[0]) for n in names if n.startswith("step-"))
    path = str(model_dir / "checkpoints" / f"step-{newest}")
    reader = CheckpointReader(path)
    tensors = {name: reader._reader.get_tensor(name).tobytes() for name in reader._keys}
    lines = (model_dir / "training.csv").read_text().splitlines()
    columns = lines[0].split(",")
    rows = [
        {k: v for k, v in zip(columns, line.split(","), strict=True) if k not in CLOCKS}
        for line in lines[1:]
    ]
    return tensors, reader.state().best, names, rows


@pytest.mark.parametrize("module", ["u2net_tf.train", "u2net_tf.adapt"])
def test_ends_with_the_same_bits(module, tiny_data, tmp_path):
    flags, log = {"data_dir": tiny_data.data_dir}, tmp_path / "log"
    if module == "u2net_tf.adapt":
        parent = {**flags, **NETWORK, "domains": "Task92_Two", "max_epochs": 1}
        status, output = run(command("u2net_tf.train", tmp_path / "old", **parent), log)
        assert status == 0, output
        flags |= {"from": tmp_path / "old", "domain": "Task91_One"}
    else:
        flags |= {**NETWORK, "domains": "Task91_One"}
    begun = time.monotonic()
    status, output = run(command(module, tmp_path / "uninterrupted", **flags), log)
    seconds = time.monotonic() - begun
    assert status == 0, output
    arguments = command(module, tmp_path / "interrupted", **flags)
    generator = random.Random(7)
    ended = []
    for _ in range(NUM_SIGNALS):
        number = generator.choice((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
        after_step = generator.random() < 0.7
        delay = generator.uniform(0, 0.3 if after_step else 0.5 * seconds)
        status, output = run(
            arguments, log, number, after_step=after_step, seconds=delay
        )
        last = (output.strip().splitlines() or [""])[-1]
        place = "its first step" if after_step else "its start"
        ended.append(f"{number.name}, {delay:.2f} s after {place}: {status}, {last}")
        # Before the package is imported, the interpreter is ended by the signal.
        assert status in (128 + number, -number), "\n".join(ended)
        assert status < 0 or last.endswith("rerun the same command to resume")
    print("\n".join(ended))
    assert [line for line in ended if "is saved in" in line]
    assert run(arguments, log)[0] == 0
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "uninterrupted")
