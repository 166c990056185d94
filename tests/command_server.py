"""Runs command lines of any module, each in a forked process.

    python tests/command_server.py [MODULE TO PRELOAD …]

Reads a JSON object per command line from standard input and answers each with another.
The interpreter starts and imports the preloaded modules only once; otherwise a command
runs as with `python -m`: none of our flags is defined before, the interpreter exits
afterwards, and nothing is shared with the next command. Tests use `CommandServer`.
"""

import dataclasses
import gc
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
# Modules that commands read their flags with; none imports a numerical library.
SETTINGS = (
    "absl.app",
    "u2net_tf.command",
    "u2net_tf.command_flags",
    "u2net_tf.config.evaluation",
    "u2net_tf.config.inference",
    "u2net_tf.config.training",
    "data_prep.config",
)
# A command that takes longer is ended by SIGALRM.
LIMIT_SECONDS = 500


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str
    imported: list[str] | None


def arguments_of(flags):
    """Command-line arguments of flags; a flag with a list is given several times."""
    return [
        f"--{name}={item}"
        for name, value in flags.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def checked(done, status):
    """Returns `done`, after checking its exit status and that it has no traceback."""
    assert done.returncode == status, done.stdout + done.stderr
    # An error is one message, not a traceback.
    assert "Traceback" not in done.stderr
    return done


class CommandServer:
    """A process that forks one for each command line; a context manager.

    Args:
      *preload: modules to import beforehand. They must neither define our flags nor
        start threads that a child would need, as TensorFlow does with its first
        operation. (Those of OpenBLAS survive a fork.)
    """

    def __init__(self, *preload):
        self._process = subprocess.Popen(
            [sys.executable, __file__, *preload],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Ends the process by closing its input."""
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, module, *arguments, text="", watched=()):
        """Runs a command line; reports which `watched` modules it imported."""
        request = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "text": text,
            "watched": list(watched),
        }
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BaseException:
            # A late answer must not be mistaken for that to the next request.
            self._process.kill()
            raise
        assert answer, "the command server has ended; can its modules be imported?"
        return Finished(**json.loads(answer))


def run_module(module, arguments, watched, report):
    """Never returns: this process becomes the command."""
    signal.alarm(LIMIT_SECONDS)
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        report.write(json.dumps([name for name in watched if name in sys.modules]))
        report.close()
    sys.exit()


def serve(text, **request):
    """Runs the command line of a request and returns the answer."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as stdin,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
        tempfile.TemporaryFile("w+", encoding="utf-8") as report,
    ):
        stdin.write(text)
        stdin.seek(0)
        child = os.fork()
        if child == 0:
            for descriptor, stream in enumerate((stdin, stdout, stderr)):
                os.dup2(stream.fileno(), descriptor)
            run_module(**request, report=report)
        _, status = os.waitpid(child, 0)
        for stream in (stdout, stderr, report):
            stream.seek(0)
        return {
            "returncode": os.waitstatus_to_exitcode(status),
            "stdout": stdout.read(),
            "stderr": stderr.read(),
            # None if the command was killed.
            "imported": json.loads(report.read() or "null"),
        }


def main():
    sys.path.insert(0, str(ROOT))
    for name in (*sys.argv[1:], *SETTINGS):
        importlib.import_module(name)
    # Garbage collections in children do not touch frozen objects, so that their memory
    # pages stay shared.
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(serve(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
