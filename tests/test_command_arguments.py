"""Positional arguments, and flags that no config defines."""

import importlib.metadata

import pytest
from absl import flags
from command_server import CommandServer

from u2net_tf import __version__, command_arguments, command_flag_errors, command_flags
from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.config.inference import DescribeConfig, PredictConfig
from u2net_tf.errors import InputError
from u2net_tf.source_commit import source_commit


def read(config, *line):
    """Returns the positional arguments and the config."""
    values = flags.FlagValues()
    command_flags.define(config, values=values)
    arguments = values(["command", *line])[1:]
    given = command_arguments.read(arguments, config, values=values)
    return given, command_flags.read(config, given, values=values)


@pytest.mark.parametrize(
    "line", [("a", "--json"), ("--json", "a"), ("--json", "--", "a")]
)
def test_positional_argument(line):
    given, config = read(DescribeConfig, *line)
    assert given == {"model": "a"}
    assert (config.model, config.json_) == ("a", True)


def test_positional_argument_has_no_flag():
    values = flags.FlagValues()
    command_flags.define(DescribeConfig, values=values)
    assert "json" in values
    assert "model" not in values


@pytest.mark.parametrize(
    ("config", "line", "message"),
    [
        (DescribeConfig, [], "command line: expected MODEL. Received: none"),
        (DescribeConfig, [""], "command line: expected MODEL. Received: none"),
        (
            DescribeConfig,
            ["a", "b"],
            "command line: expected MODEL and flags (--name=value). Received: a, b",
        ),
        (
            EvaluateConfig,
            [str(n) for n in range(9)],
            "command line: expected flags only (--name=value). Received: 0, 1, 2, 3, 4 "
            "and 4 more. Did you mean --model_dir=0?",
        ),
        (EvaluateConfig, ["--model_dir=a", "b"], "Received: b"),
        (
            EvaluateConfig,
            ["split=test"],
            "Received: split=test. Did you mean --split=tes",
        ),
        # Word processors turn two hyphens into a dash.
        (EvaluateConfig, ["—split=test"], "Received: —split=test. Did you mean --spli"),
        (EvaluateConfig, ["other=test"], "Did you mean --model_dir=other=test?"),
        (
            EvaluateConfig,
            ["--overwrite", "False"],
            "Received: False. Did you mean --overwrite=False?",
        ),
        (
            EvaluateConfig,
            ["--domains=A,", "B"],
            "Received: B. Did you mean --domains=A,B, without spaces?",
        ),
        (
            PredictConfig,
            ["--model_dir=a", "--input=1.nii", "2.nii"],
            "Received: 2.nii. Did you mean --output=2.nii?",
        ),
    ],
)
def test_unexpected_or_missing_arguments(config, line, message):
    with pytest.raises(InputError) as caught:
        read(config, *line)
    assert message in str(caught.value)
    if message.endswith("Received: b"):
        assert not caught.value.hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--modl_dir=a",
            "command line: expected a flag listed by --help. Received: --modl_dir. Did "
            "you mean --model_dir?",
        ),
        ("--xyz", "command line: expected a flag listed by --help. Received: --xyz"),
        (
            "--split=all",
            "`split`: expected one of train, validation, test. Received: all",
        ),
        ("--batch_size=a", "`batch_size`: expected a positive integer. Received: a"),
        ("--overlap=a", "`overlap`: expected a number in the range [0, 0.95]. Rec"),
        ("--overwrite=a", "`overwrite`: expected true or false. Received: a"),
        # The parser's message contains the value.
        ("--batch_size=a: b", "`batch_size`: expected a positive integer. Received: a"),
        (
            "--model_dir",
            "command line: expected valid flags. Received: Missing value f",
        ),
    ],
)
def test_errors_of_flags(line, message):
    values = flags.FlagValues()
    command_flags.define(EvaluateConfig, values=values)
    with pytest.raises(flags.Error) as caught:
        values(["command", line])
    error = command_flag_errors.as_input_error(caught.value, values)
    assert str(error).startswith(message)


@pytest.fixture(scope="module")
def server():
    with CommandServer() as server:
        yield server


@pytest.mark.parametrize("command", ["u2net_tf.train", "data_prep.plan", "tools.demo"])
def test_version(command, server):
    done = server.run(command, "--version", watched=("tensorflow", "keras"))
    assert (done.returncode, done.stderr, done.imported) == (0, "", [])
    first, second = done.stdout.splitlines()
    assert first == f"u2net-tf {__version__}"
    assert f"TensorFlow {importlib.metadata.version('tensorflow')}, Keras 3." in second
    assert (source_commit() or "") in second
