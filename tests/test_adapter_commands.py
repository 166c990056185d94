"""Command groups, whose first argument is a subcommand."""

import numpy as np
import pytest
import toy
from command_server import CommandServer

from u2net_tf.command_arguments import take_command
from u2net_tf.errors import InputError
from u2net_tf.models import adapter_files
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan

NAMES = ["export", "add", "list"]


@pytest.fixture(scope="module")
def server():
    with CommandServer("without_tensorflow") as server:
        yield server


class TestTakeCommand:
    def test_moves_the_name_to_the_program(self):
        argv = ["adapter.py", "add", "--input=x", "add"]
        assert take_command(argv, NAMES) == "add"
        assert argv == ["adapter.py add", "--input=x", "add"]

    @pytest.mark.parametrize("text", ["--help", "-h", "--helpfull", "--version", "-?"])
    def test_help_needs_no_command(self, text):
        argv = ["adapter.py", text]
        assert take_command(argv, NAMES) is None
        assert argv == ["adapter.py", text]

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            ([], "export, add or list as the first argument. Received: none$"),
            (["ad"], "Received: ad. Did you mean add?"),
            (["--input=x", "add"], "Received: --input=x$"),
        ],
    )
    def test_an_unknown_command_is_rejected(self, argv, words):
        with pytest.raises(InputError, match=f"^command line: .*{words}"):
            take_command(["adapter.py", *argv], NAMES)


class TestAdapter:
    def test_each_command_has_its_flags(self, server):
        done = server.run("u2net_tf.adapter", "export", "--help")
        assert "Writes a domain of a model as an adapter file." in done.stdout
        assert "adapter.py export:" in done.stdout
        assert "--licence:" in done.stdout
        assert "--input:" not in done.stdout
        done = server.run("u2net_tf.adapter", "add", "--help")
        assert "--input:" in done.stdout
        assert "--licence:" not in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "error: command line: expected export, add, list or remove as the"),
            (["export"], "error: --model_dir: expected a value. Received: none\n"),
            (["add", "--model_dir=x"], "error: --input: expected a value. Received: n"),
            (
                ["add", "--model_dir=x", "--input=a,a"],
                "error: --input: expected distinct values. Received: a,a\n",
            ),
            (
                ["add", "--model_dir=x", "--input=a", "--output_dir="],
                "error: --output_dir: expected a non-empty string. Received: ",
            ),
            (
                ["list"],
                "error: --model_dir: expected a value here or for --input. R",
            ),
            (
                ["add", "--model_dir=x", "--input=a", "--input=b"],
                "error: --input: expected one list, with its values separated by comm",
            ),
            (
                ["list", "--licence=x"],
                "expected a flag listed by --help. Received: --l",
            ),
            (["list", "--input=/no/file"], "error: /no/file: expected an adapter file"),
            (["remove", "--model_dir=x"], "error: --domains: expected a value. Rec"),
        ],
    )
    def test_invalid_arguments_are_reported(self, server, arguments, words):
        done = server.run("u2net_tf.adapter", *arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1

    def test_files_are_listed_without_tensorflow(self, server, tmp_path):
        spec = ModelSpec(plan=Plan((toy.ONE,)), pools=(1, 1, 1))
        values = {"stem/kernel": np.ones(3, np.float32)}
        adapter = adapter_files.Adapter(spec, "a" * 64, values, "MIT")
        path = tmp_path / "x.safetensors"
        path.write_bytes(adapter_files.to_bytes(adapter))
        done = server.run("u2net_tf.adapter", "list", f"--input={path}")
        assert done.returncode == 0, done.stderr
        assert "Task91_One" in done.stdout
        assert "MIT" in done.stdout


def test_certify_reports_missing_flags(server):
    for arguments, words in (
        ([], "error: --before: expected a value. Received: none\n"),
        (["--before=x"], "error: --after: expected a value. Received: none\n"),
        (
            ["--before=x", "--after=y", "--output=z"],
            "error: --output: expected a name that ends in .json. Received: z\n",
        ),
    ):
        done = server.run("u2net_tf.certify", *arguments)
        assert (done.returncode, done.stderr) == (1, words)
