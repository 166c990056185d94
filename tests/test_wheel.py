"""The wheel is complete and works outside a checkout."""

import concurrent.futures
import configparser
import email
import functools
import importlib
import os
import re
import shutil
import site
import subprocess
import sys
import zipfile

import pytest
from command_session import ROOT
from test_imports import imports_of

PACKAGES = ("u2net_tf", "data_prep")
# Sources of the wheel.
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", *PACKAGES)
BUILD = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"


def run(*arguments, **options):
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
        **options,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves files next to the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    done = run(sys.executable, "-c", BUILD, folder / "dist", cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


# Modules that come from a distribution of another name.
OWNERS = {"absl": "absl-py"}


def requirements(texts):
    """Name -> set of version ranges."""
    parts = (re.fullmatch(r"([\w\[\]-]+)(.*)", text) for text in texts)
    return {part[1].lower(): set(part[2].split(",")) for part in parts}


def required(metadata, extra=""):
    """Requirements of the package, or those that an extra adds."""
    found = []
    for text in metadata.get_all("Requires-Dist"):
        requirement, _, condition = text.partition(";")
        (name,) = re.findall('extra == "(.+)"', condition) or [""]
        if name == extra:
            found.append(requirement.strip())
    return requirements(found)


def runtime():
    lines = (ROOT / "u2net_tf" / "runtime.txt").read_text().splitlines()
    return requirements(line for line in lines if line and not line.startswith("#"))


class TestContents:
    def test_has_every_committed_file(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            found = set(archive.namelist())
        paths = [path for top in PACKAGES for path in (ROOT / top).rglob("*")]
        expected = {
            path.relative_to(ROOT).as_posix()
            for path in paths
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert {name for name in found if ".dist-info/" not in name} == expected
        assert "u2net_tf/flagfiles/universal.flags" in expected
        assert "data_prep/flagfiles/upstream.flags" in expected

    def test_every_script_starts_a_packaged_module(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            (path,) = (n for n in archive.namelist() if n.endswith("/entry_points.txt"))
            parser = configparser.ConfigParser()
            parser.read_string(archive.read(path).decode())
        scripts = dict(parser["console_scripts"])
        assert len(scripts) == 22
        for entry_point in scripts.values():
            module, _, function = entry_point.partition(":")
            assert callable(getattr(importlib.import_module(module), function))

    def test_requirements_without_tensorflow(self, metadata):
        expected = runtime()
        assert required(metadata).items() >= expected.items()
        more = required(metadata).keys() - expected.keys()
        assert more == {"tensorflow", "keras", "tensorboard"}

    def test_gpu_has_the_same_tensorflow(self, metadata):
        assert required(metadata, "gpu") == {
            "tensorflow[and-cuda]": required(metadata)["tensorflow"]
        }

    @pytest.mark.parametrize(
        ("extra", "names"), [("pictures", {"matplotlib"}), ("torch", {"torch"})]
    )
    def test_extras_that_messages_name(self, metadata, extra, names):
        assert required(metadata, extra).keys() == names


@functools.cache
def imports(path):
    return tuple(imports_of(path))


def modules_of(start):
    """Paths of the project's modules that a file imports, directly or indirectly."""
    found, left = set(), [start]
    while left:
        path = left.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        for module in imports(path):
            base = ROOT.joinpath(*module.split("."))
            left += [base.with_suffix(".py"), base.parent.with_suffix(".py")]
    return found


@pytest.mark.parametrize(
    "start",
    [
        "u2net_tf/predict.py",
        "u2net_tf/evaluate.py",
        "data_prep/survey/__main__.py",
        "data_prep/plan/__main__.py",
    ],
)
def test_runtime_has_all_that_is_imported(start):
    """Except TensorFlow and what extras are for.

    A survey without pictures does not need matplotlib: see `test_survey_pictures.py`.
    Outputs other than DICOM do not need highdicom: see `test_dicom_segmentation.py`.
    """
    modules = {m for path in modules_of(ROOT / start) for m in imports(path)}
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    tops -= {*PACKAGES, "tensorflow", "keras", "matplotlib", "highdicom"}
    names = {OWNERS.get(top, top.lower()) for top in tops}
    assert names <= {name.partition("[")[0] for name in runtime()}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs installed scripts, in an environment and a folder of their own.

    The environment sees the packages of the current one, except for the editable
    installation: that relies on a .pth file, which is read in a site folder only.
    """
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    ours = run(python, "-c", "import site; print(site.getsitepackages()[0])")
    folder = ours.stdout.strip()
    with open(os.path.join(folder, "tests.pth"), "w") as file:
        file.write("\n".join(site.getsitepackages()))
    # The pip of the current environment, whose packages must not change.
    options = ("--ignore-installed", "--no-deps", "--no-index", "--no-compile")
    done = run(python, "-m", "pip", "install", *options, wheel)
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    names = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}

    def start(name, *arguments):
        script = environment / "bin" / name
        return run(script, *arguments, cwd=elsewhere, env=names)

    return environment, start


def scripts(environment):
    return sorted(path.name for path in (environment / "bin").glob("u2net-*"))


class TestInstalled:
    def test_imports_the_installed_wheel(self, installed):
        environment, start = installed
        text = "import u2net_tf as a, data_prep as b; print(a.__file__, b.__file__)"
        paths = start("python", "-c", text).stdout.split()
        assert len(paths) == 2
        assert all(path.startswith(str(environment)) for path in paths)

    # Starts an interpreter per script.
    @pytest.mark.slow
    def test_help_of_every_script(self, installed):
        environment, start = installed
        names = scripts(environment)
        assert len(names) == 22
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            # The flags of u2net-adapter depend on its subcommand.
            given = [["export"] if name == "u2net-adapter" else [] for name in names]
            answers = pool.map(
                lambda name, more: start(name, *more, "--help"), names, given
            )
        for name, done in zip(names, answers, strict=True):
            assert "Traceback" not in done.stderr, name
            assert re.search(f"bin/{name}( export)?:", done.stdout)
            assert "\n  --" in done.stdout

    @pytest.mark.parametrize(
        ("name", "flagfile", "words"),
        [
            ("u2net-train", "universal", "error: --data_dir: expected a value"),
            ("u2net-plan", "upstream", "error: --survey: expected a value"),
            ("u2net-train", "nothing", "error: --flagfile: expected a file, or one of"),
        ],
    )
    def test_flagfiles_are_found_by_name(self, installed, name, flagfile, words):
        done = installed[1](name, f"--flagfile={flagfile}")
        assert done.stderr.startswith(words)
        assert done.stderr.count("\n") == 1
