"""Imports only go up: a file may use what stands above it in this list, never below."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest
from sources import tree_of

ROOT = pathlib.Path(__file__).parents[1]
# A folder is one step, and so is a file; files of one folder may use each other.
ORDER = (
    "u2net_tf.__version__",
    "u2net_tf.wording",
    "u2net_tf.errors",
    "u2net_tf.system_errors",
    "u2net_tf.stop_signals",
    "u2net_tf.source_commit",
    "u2net_tf.protocol_buffers",
    "u2net_tf.migrations",
    "u2net_tf.temporary_names",
    "u2net_tf.files",
    "u2net_tf.locks",
    "u2net_tf.schema",
    "u2net_tf.file_format",
    "u2net_tf.progress",
    "u2net_tf.machine",
    "u2net_tf.export_packages",
    "u2net_tf.parallel",
    "u2net_tf.work_log",
    "u2net_tf.interpolation",
    "u2net_tf.plan",
    "u2net_tf.config",
    "u2net_tf.command_flags",
    "u2net_tf.command_flag_errors",
    "u2net_tf.command_arguments",
    "u2net_tf.command_version",
    "u2net_tf.command_flagfiles",
    "u2net_tf.command_progress",
    "u2net_tf.command",
    "u2net_tf.volumes",
    "u2net_tf.visualization",
    "u2net_tf.shards",
    "u2net_tf.networks",
    "u2net_tf.losses",
    "u2net_tf.models",
    "u2net_tf.published_weights",
    "u2net_tf.input.augmentation",
    "u2net_tf.input",
    "u2net_tf.inference",
    "u2net_tf.evaluation",
    "u2net_tf.exporting",
    "u2net_tf.certification",
    "u2net_tf.serving",
    "u2net_tf.training",
    "u2net_tf.train",
    "u2net_tf.adapt",
    "u2net_tf.compose",
    "u2net_tf.export",
    "u2net_tf.pack",
    "u2net_tf.adapter",
    "u2net_tf.certify",
    "u2net_tf.evaluate",
    "u2net_tf.predict",
    "u2net_tf.serve",
    "u2net_tf.describe",
    "u2net_tf.complexity",
    "u2net_tf.show_augmentations",
    "u2net_tf.draw_overlays",
    "u2net_tf.plot_training",
    "u2net_tf.port_torch_weights",
)
# Of these `data_prep` makes its shards, and of nothing else.
FOR_DATA_PREP = ORDER[: ORDER.index("u2net_tf.shards") + 1]
# Of these alone it needs TensorFlow.
WITH_TENSORFLOW = (
    "u2net_tf.shards.records",
    "u2net_tf.shards.record_checks",
    "u2net_tf.shards.reading",
)
# And the stages of `data_prep`, one after the other.
STAGES = (
    "data_prep.config",
    "data_prep.survey",
    "data_prep.plan",
    "data_prep.convert",
    "data_prep.verify",
)
# Commands are used by nobody.
COMMANDS = ORDER[ORDER.index("u2net_tf.train") :]


def name_of(path):
    if path.name == "__init__.py":
        path = path.parent
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@functools.cache
def imports_of(path, *, at_the_top=False):
    """Modules that a file imports, anywhere or when it is imported itself."""
    return tuple(_imports_of(path, at_the_top))


def _imports_of(path, at_the_top):
    tree = tree_of(path)
    nodes = _run_at_import(tree) if at_the_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from package import module` names the module second.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_at_import(node):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _run_at_import(child)


def step_of(module):
    """Where a module stands in the order; None for another package."""
    steps = [step for step in (*ORDER, *STAGES) if f"{module}.".startswith(f"{step}.")]
    if steps:
        # A folder within a folder may be a step of its own.
        return max(steps, key=len)
    ours = module.startswith(("u2net_tf.", "data_prep."))
    assert not ours, f"{module} has no place in the order"
    return None


# Old places of commands, which only lead to the new ones.
OLD_PLACES = ["u2net_tf.networks.complexity"]
# What a package itself is has no place in the order: its names are those of its steps.
PACKAGES = ["u2net_tf", "data_prep"]
LIBRARY, PREPARATION = (
    [
        path
        for path in (ROOT / package).rglob("*.py")
        if name_of(path) not in (*PACKAGES, *OLD_PLACES)
    ]
    for package in PACKAGES
)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_imports_go_up(path):
    own = step_of(name_of(path))
    for module in imports_of(path):
        step = step_of(module)
        assert not module.startswith(("data_prep", "tools", "tests")), module
        if step is not None:
            assert ORDER.index(step) <= ORDER.index(own), f"{module} stands below"
            assert step == own or step not in COMMANDS, f"{module} is a command"


# Modules that may define flags: what a command is made of, and commands.
WITH_FLAGS = (
    "u2net_tf.command_flags",
    "u2net_tf.command_flag_errors",
    "u2net_tf.command_arguments",
    "u2net_tf.command_version",
    "u2net_tf.command_flagfiles",
    "u2net_tf.command",
    *COMMANDS,
)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_has_no_flags(path):
    if name_of(path) not in WITH_FLAGS:
        modules = imports_of(path)
        assert "absl.flags" not in modules
        assert not [m for m in modules if m.startswith("u2net_tf.command")]


@pytest.mark.parametrize("path", PREPARATION, ids=name_of)
def test_data_prep_uses_the_first_few(path):
    for module in imports_of(path):
        assert not module.startswith(("tools", "tests")), module
        assert step_of(module) in (None, *FOR_DATA_PREP, *STAGES), module


@pytest.mark.parametrize("path", PREPARATION, ids=name_of)
def test_a_stage_uses_those_before_it_only(path):
    own = STAGES.index(step_of(name_of(path)))
    for module in imports_of(path):
        step = step_of(module)
        if step in STAGES:
            assert STAGES.index(step) <= own, f"{module} stands below"


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "u2net_tf" / "__init__.py",
        ROOT / "data_prep" / "__init__.py",
        *PREPARATION,
        *(
            path
            for path in LIBRARY
            if step_of(name_of(path)) in FOR_DATA_PREP
            and name_of(path) not in WITH_TENSORFLOW
        ),
    ],
    ids=name_of,
)
def test_tensorflow_is_imported_where_it_is_needed_only(path):
    """Worker processes of `data_prep` start without it."""
    for module in imports_of(path, at_the_top=True):
        assert module.partition(".")[0] not in ("tensorflow", "keras"), module
        # And not by way of a file that imports it.
        assert not module.startswith(WITH_TENSORFLOW), module


BACKENDS = "u2net_tf.inference.backends."
INFERENCE = [
    path
    for path in LIBRARY
    if step_of(name_of(path)) == "u2net_tf.inference"
    and not name_of(path).startswith(BACKENDS)
]


@pytest.mark.parametrize("path", INFERENCE, ids=name_of)
def test_only_backends_of_inference_import_tensorflow(path):
    for module in imports_of(path):
        assert module.partition(".")[0] not in ("tensorflow", "keras"), module
        assert not f"{module}.".startswith(BACKENDS), module


def test_predictor_works_without_tensorflow():
    """Nor does anything import it that it imports."""
    script = (
        "import sys; import u2net_tf.inference.label_maps; "
        "import u2net_tf.inference.backends.opening; "
        "import u2net_tf.inference.backends.openvino; "
        "import u2net_tf.inference.backends.onnxruntime; "
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "[]"
