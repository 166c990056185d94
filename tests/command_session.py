"""Runs several command lines of one module in one process, one after the other.

    python tests/command_session.py MODULE EXECUTION <<< '[["--flag=value"], …]'

Importing TensorFlow takes seconds; this does it once. Prints a JSON list with the
result of each command line. Tests of commands call `session`, which runs it in a
process forked from one that has already imported TensorFlow.
"""

import atexit
import contextlib
import functools
import importlib
import io
import json
import pathlib
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from command_server import CommandServer  # noqa: E402


def python(*arguments, text=""):
    """Runs Python in the root of the repository."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        input=text,
        capture_output=True,
        # Not the locale's encoding: GDCM sets the locale to C when a test writes DICOM.
        encoding="utf-8",
        timeout=500,
    )


@functools.cache
def tensorflow_server():
    """A server whose processes start with TensorFlow imported."""
    server = CommandServer(
        "u2net_tf.models.build",
        "u2net_tf.training.loop",
        "u2net_tf.inference.predictor",
    )
    atexit.register(server.close)
    return server


def session(module, command_lines, execution="xla"):
    """Runs command lines of one module (name -> arguments); returns name -> result.

    With the execution "plain", nothing is compiled by XLA, which takes seconds for a
    network; with "eager", no step is traced either.
    """
    lines = [[str(argument) for argument in line] for line in command_lines.values()]
    done = tensorflow_server().run(
        "command_session", module, execution, text=json.dumps(lines)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(command_lines, json.loads(done.stdout), strict=True))


def run(module, arguments):
    """Runs one command line; returns its status and standard output."""
    for name in list(flags.FLAGS):
        flags.FLAGS[name].unparse()
    sys.argv = [module.__name__, *arguments]
    status, printed = 0, io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            module.run()
        except SystemExit as done:
            status = done.code
        except Exception:
            status = traceback.format_exc()
    return {"status": status or 0, "stdout": printed.getvalue()}


def record_window_options(options):
    """Records the options that each volume is predicted with."""
    from u2net_tf.inference import predictor

    original = predictor.predict_volume

    def predict_volume(image, predict, **keywords):
        options.append({name: keywords[name] for name in ("overlap", "batch_size")})
        return original(image, predict, **keywords)

    predictor.predict_volume = predict_volume


def main():
    from u2net_tf.networks import ops

    module, execution = importlib.import_module(sys.argv[1]), sys.argv[2]
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{module.__name__}.__main__")
    options, results = [], []
    record_window_options(options)
    steps = contextlib.nullcontext
    if execution == "eager":
        import toy

        execution, steps = "plain", toy.eager_steps
    for arguments in json.load(sys.stdin):
        options.clear()
        with ops.use_implementation(execution), steps():
            ended = run(module, arguments)
        results.append({**ended, "windows": list(options)})
    json.dump(results, sys.__stdout__)


if __name__ == "__main__":
    main()
