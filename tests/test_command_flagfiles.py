"""Flagfiles given by name or by path, from any working directory."""

import sys

import pytest
from absl import flags
from command_server import CommandServer
from command_session import ROOT

from u2net_tf import command_flagfiles
from u2net_tf.errors import InputError

UNIVERSAL = ROOT / "u2net_tf" / "flagfiles" / "universal.flags"


def expand(*arguments, package="u2net_tf"):
    program, *others = command_flagfiles.expand(["program", *arguments], package)
    assert program == "program"
    return others


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a flagfile into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name, *lines):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "arguments",
    [
        ("--flagfile=universal",),
        ("-flagfile=universal",),
        ("--flagfile", "universal"),
        ("-flagfile", "universal"),
        (f"--flagfile={UNIVERSAL}",),
        ("--flagfile", f"{UNIVERSAL}"),
    ],
)
def test_lines_replace_the_flagfile(arguments):
    found = expand("--data_dir=a", *arguments, "--seed=1")
    assert found[0] == "--data_dir=a"
    assert found[-1] == "--seed=1"
    lines = UNIVERSAL.read_text().splitlines()
    assert found[1:-1] == [line for line in lines if line.startswith("--")]


def test_other_arguments_are_unchanged():
    arguments = ["--a=flagfile", "--flagfiles=b", "flagfile=c", "--no", "-x", ""]
    assert expand(*arguments) == arguments
    assert command_flagfiles.expand([], "u2net_tf") == []


def test_nothing_after_two_dashes_is_a_flag():
    assert expand("--a", "--", "--flagfile=b") == ["--a", "--", "--flagfile=b"]


def test_an_empty_name_is_ignored_as_in_absl():
    assert expand("--flagfile=", "--a") == ["--a"]


def test_several_flagfiles_are_expanded_in_order(write):
    one, two = write("one.flags", "--a=1"), write("two.flags", "--a=2")
    found = expand(f"--flagfile={two}", f"--flagfile={one}", "--b=3")
    assert found == ["--a=2", "--a=1", "--b=3"]


def test_comments_and_blank_lines_are_skipped(write):
    write("mine", "# why", "// so", "", "   ", "  --a=1  ", "--b=#2")
    assert expand("--flagfile=mine") == ["--a=1", "--b=#2"]


def test_flagfiles_within_a_flagfile(write):
    write("outer", "--a=1", "--flagfile=inner", "--flagfile=demo", "--d=4")
    write("inner", "--b=2")
    found = expand("--flagfile=outer", "--e=5")
    assert found[:2] == ["--a=1", "--b=2"]
    assert found[2:-2] == expand("--flagfile=demo")
    assert found[-2:] == ["--d=4", "--e=5"]


def test_a_flagfile_may_be_included_twice(write):
    write("outer", "--flagfile=inner", "--flagfile=inner")
    write("inner", "--b=2")
    assert expand("--flagfile=outer") == ["--b=2", "--b=2"]


def test_a_file_takes_precedence_over_a_name(write):
    write("universal", "--mine")
    assert expand("--flagfile=universal") == ["--mine"]


def test_a_folder_does_not_take_precedence(write, tmp_path):
    (tmp_path / "demo").mkdir()
    assert "--base_channels=8" in expand("--flagfile=demo")


def test_home_is_expanded(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("mine.flags", "--a=1")
    assert expand("--flagfile=~/mine.flags") == ["--a=1"]


def test_each_package_has_its_own_flagfiles():
    assert "--margin_voxels=5" in expand("--flagfile=upstream", package="data_prep")
    assert "--adapter=separable" in expand("--flagfile=upstream")
    # Commands of other packages use those of the library.
    assert expand("--flagfile=upstream", package="tools") == expand(
        "--flagfile=upstream"
    )


@pytest.mark.parametrize(
    ("arguments", "package", "message"),
    [
        (
            ["--flagfile=universe"],
            "u2net_tf",
            "--flagfile: expected a file, or one of adapt, demo, independent, "
            "recommended, recommended_universal, shared, unet_sharp, universal, "
            "upstream. Received: universe",
        ),
        (
            ["--flagfile", "universal"],
            "data_prep",
            "--flagfile: expected a file, or one of upstream. Received: universal",
        ),
        # A path or a file extension is not part of a name.
        (
            ["--flagfile=up.flags"],
            "data_prep",
            "--flagfile: expected a file, or one of upstream. Received: up.flags",
        ),
        (
            ["--flagfile=./upstream"],
            "data_prep",
            "--flagfile: expected a file, or one of upstream. Received: ./upstream",
        ),
        (["--flagfile"], "u2net_tf", "--flagfile: expected a value. Received: none"),
    ],
)
def test_an_unknown_flagfile_is_reported(write, arguments, package, message):
    with pytest.raises(InputError) as caught:
        expand(*arguments, package=package)
    assert str(caught.value) == message


def test_a_flagfile_must_not_include_itself(write):
    write("one", "--flagfile=two")
    write("two", "--a", "--flagfile=./one")
    with pytest.raises(InputError) as caught:
        expand("--flagfile=one")
    assert str(caught.value) == (
        "two: expected no flagfile that includes this one. Received: --flagfile=./one"
    )


def test_a_binary_file_is_reported(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="scan: expected a flagfile, in UTF-8. Rec"):
        expand(f"--flagfile={path}")


def test_expansion_agrees_with_absl(write):
    """Except for names and errors, expansion follows absl's documentation."""
    write("inner", "--b=2", "", "// no", "--flagfile=")
    path = write("outer", "--a=1", "#--c", "--flagfile=inner", "--d")
    arguments = [
        "--x",
        "-flagfile",
        str(path),
        "--flagfile=inner",
        "--",
        "--flagfile=y",
    ]
    assert expand(*arguments) == flags.FlagValues().read_flags_from_files(arguments)


@pytest.fixture(scope="module")
def server():
    with CommandServer() as server:
        yield server


class TestCommands:
    @pytest.mark.parametrize(
        ("module", "name", "words"),
        [
            ("u2net_tf.train", "universal", "error: --data_dir: expected a value. "),
            ("u2net_tf.adapt", "adapt", "error: --data_dir: expected a value. "),
            ("data_prep.plan", "upstream", "error: --survey: expected a value. "),
            ("u2net_tf.train", "x", "error: --flagfile: expected a file, or one of ad"),
            ("data_prep.plan", "x", "error: --flagfile: expected a file, or one of up"),
        ],
    )
    def test_know_the_names_of_their_package(self, server, module, name, words):
        done = server.run(module, f"--flagfile={name}")
        assert done.returncode == 1
        assert done.stderr.startswith(words)
        assert done.stderr.count("\n") == 1

    def test_flags_after_a_flagfile_count(self, server):
        done = server.run("u2net_tf.train", "--flagfile=universal", "--batch_size=-1")
        assert done.returncode == 1
        assert "error: --batch_size: expected a non-neg" in done.stderr

    def test_are_found_by_a_console_script(self, monkeypatch):
        """A console script imports the module under its name, not as `__main__`."""
        from u2net_tf import train

        monkeypatch.setattr(sys, "argv", ["u2net-train", "--flagfile=nothing"])
        with pytest.raises(SystemExit) as ended:
            train.run()
        assert "one of adapt, demo" in str(ended.value)
