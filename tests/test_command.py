import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
COMMAND = """
from absl import flags
from u2net_tf import command, command_flags, machine

SIZE = flags.DEFINE_string("size", None, "A size.")

def main(argv):
    command_flags.required(SIZE)
    {body}

command.start(main)
"""


def run(body, *arguments, path=(), encoding="utf-8"):
    text = COMMAND.format(body=textwrap.dedent(body).replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", text, *arguments],
        capture_output=True,
        encoding=encoding,
        timeout=60,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))},
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "raise command.InputError('x.nii', expected='good', received='bad')",
            "error: x.nii: expected good. Received: bad\n",
        ),
        ("raise command.StoppedError('step 7')", "error: step 7\n"),
        (
            "open('/no/such/file')",
            "error: /no/such/file: expected an existing file or folder. Received: no "
            "such file or directory\n",
        ),
        ("raise OSError('`size` is up')", "error: --size is up\n"),
        (
            "bytearray(1 << 62)",
            "error: expected enough memory. Received: MemoryError\n",
        ),
    ],
)
def test_error_is_one_line(body, message):
    done = run(body, "--size=1")
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


RERUN = "rerun the same command to resume\n"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("raise KeyboardInterrupt", 130, f"interrupted; {RERUN}"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, f"interrupted; {RERUN}"),
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            143,
            f"interrupted by SIGTERM; {RERUN}",
        ),
        (
            "os.kill(os.getpid(), signal.SIGUSR1)",
            128 + signal.SIGUSR1,
            f"interrupted by SIGUSR1; {RERUN}",
        ),
        (
            "raise errors.StoppedEarlyError('`size` is up', exit_status=75)",
            75,
            "--size is up\n",
        ),
    ],
)
def test_interrupt_is_one_line(body, status, message):
    done = run(
        f"import os, signal, time\nfrom u2net_tf import errors\n{body}\ntime.sleep(60)",
        "--size=1",
    )
    assert (done.returncode, done.stderr, done.stdout) == (status, message, "")


AS_ANOTHER_ERROR = """try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt as error:
    raise RuntimeError("as native code does") from error
"""


def test_ctrl_c_reraised_as_another_error():
    done = run(f"import os, signal, time\n{AS_ANOTHER_ERROR}", "--size=1")
    assert (done.returncode, done.stderr) == (130, f"interrupted; {RERUN}")


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", AS_ANOTHER_ERROR])
def test_ctrl_c_while_a_command_is_imported(body):
    # Background jobs of a shell ignore it, and so would this one.
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    source = f"import os, signal, time\n{heard}\nfrom u2net_tf import command\n{body}"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert done.stderr == f"interrupted; {RERUN}"
    # Python ends itself by the signal, which shells show as 130.
    assert done.returncode == -signal.SIGINT


def test_command_imports_no_other_packages():
    """Ctrl-C shows a traceback until it is imported, so its import must be quick."""
    source = "import sys\nfrom u2net_tf import command\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert {"absl", "pydantic", "numpy", "tqdm"} & set(done.stdout.split()) == set()


def test_bug_shows_a_traceback():
    done = run("raise ValueError('a fault')", "--size=1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_success_has_status_0():
    done = run("print(SIZE.value)", "--size=1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_settings_are_shown_as_flags():
    body = """
    flags.DEFINE_string("from", "", "A folder.")
    raise command.InputError(
        "`size`", expected="`size`=1 or `from_`", received="`python -m a` and `other`"
    )
    """
    done = run(body, "--size=1")
    assert done.stderr == (
        "error: --size: expected --size=1 or --from. Received: `python -m a` and "
        "`other`\n"
    )


@pytest.mark.parametrize("arguments", [(), ("--size=",)])
def test_required_flag(arguments):
    done = run("print('not to be seen')", *arguments)
    assert done.returncode == 1
    assert done.stderr == "error: --size: expected a value. Received: none\n"
    assert done.stdout == ""


def test_unexpected_argument_is_an_error():
    done = run("pass", "--size=1", "size", "2")
    assert done.returncode == 1
    assert done.stderr == (
        "error: command line: expected flags only (--name=value). Received: size, 2\n"
    )


NOISY = "import os\nos.write(2, b'start-up message\\n')\n"


@pytest.fixture
def noisy_tensorflow(tmp_path):
    """A package of this name that writes to the descriptor of stderr, as C++ does."""

    def make(more=""):
        (tmp_path / "tensorflow.py").write_text(NOISY + more)
        return [tmp_path]

    return make


def test_start_up_messages_of_tensorflow_are_hidden(noisy_tensorflow):
    body = """
    machine.import_tensorflow()
    import os, sys
    assert "tensorflow" in sys.modules
    os.write(2, b"later message\\n")
    """
    done = run(body, "--size=1", path=noisy_tensorflow())
    assert done.returncode == 0, done.stderr
    assert done.stderr == "later message\n"


def test_messages_of_a_failed_import_are_shown(noisy_tensorflow):
    path = noisy_tensorflow("raise ImportError('no such instruction')")
    done = run("machine.import_tensorflow()", "--size=1", path=path)
    assert done.returncode == 1
    assert done.stderr.startswith("start-up message\n")
    assert "no such instruction" in done.stderr


def test_messages_before_an_abort_are_shown(noisy_tensorflow):
    path = noisy_tensorflow("os.write(2, b'no such instruction\\n')\nos.abort()\n")
    done = run("machine.import_tensorflow()", "--size=1", path=path)
    assert done.returncode == -signal.SIGABRT
    assert "start-up message\nno such instruction\n" in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_unencodable_characters_become_question_marks(monkeypatch, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    body = """
    print("3 × 4 北")
    raise command.InputError("北.nii", expected="good", received="bad")
    """
    done = run(body, "--size=1", encoding=encoding)
    assert done.returncode == 1
    assert done.stdout == ("3 ? 4 ?\n" if encoding == "ascii" else "3 × 4 ?\n")
    assert done.stderr == "error: ?.nii: expected good. Received: bad\n"


@pytest.mark.parametrize(
    ("lines", "flag"), [(1, "--size=1"), (100_000, "--size=1"), (0, "--help")]
)
def test_closed_pipe(lines, flag):
    """The reader closes the pipe before a short or a long output is written."""
    text = f"for _ in range({lines}): print('a line of the table')"
    source = COMMAND.format(body=text)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", source, flag],
        stdout=writing,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        cwd=ROOT,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
