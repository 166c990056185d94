"""Imports only go up: a module may import what is above it in this list, not below."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest
from sources import tree_of

ROOT = pathlib.Path(__file__).parents[1]
# A package or a module is one layer; modules of one package may import each other.
ORDER = (
    "u2net_tf.__version__",
    "u2net_tf.wording",
    "u2net_tf.errors",
    "u2net_tf.case_groups",
    "u2net_tf.system_errors",
    "u2net_tf.stop_signals",
    "u2net_tf.source_commit",
    "u2net_tf.protocol_buffers",
    "u2net_tf.migrations",
    "u2net_tf.old_flags",
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
    "u2net_tf.score",
    "u2net_tf.compare",
    "u2net_tf.predict",
    "u2net_tf.serve",
    "u2net_tf.describe",
    "u2net_tf.complexity",
    "u2net_tf.show_augmentations",
    "u2net_tf.draw_overlays",
    "u2net_tf.plot_training",
    "u2net_tf.port_torch_weights",
)
# The only layers that `data_prep` imports.
FOR_DATA_PREP = ORDER[: ORDER.index("u2net_tf.shards") + 1]
# The only modules of these layers that need TensorFlow.
WITH_TENSORFLOW = (
    "u2net_tf.shards.records",
    "u2net_tf.shards.record_checks",
    "u2net_tf.shards.reading",
)
# The stages of `data_prep`, in order.
STAGES = (
    "data_prep.config",
    "data_prep.survey",
    "data_prep.plan",
    "data_prep.convert",
    "data_prep.verify",
)
# Commands, which no other module imports.
COMMANDS = ORDER[ORDER.index("u2net_tf.train") :]


def name_of(path):
    if path.name == "__init__.py":
        path = path.parent
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@functools.cache
def imports_of(path, *, at_the_top=False):
    """Modules that a file imports: all of them, or those imported along with it."""
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


def layer_of(module):
    """The layer that a module belongs to; None for another package."""
    layers = [name for name in (*ORDER, *STAGES) if f"{module}.".startswith(f"{name}.")]
    if layers:
        # A subpackage may be a layer of its own.
        return max(layers, key=len)
    ours = module.startswith(("u2net_tf.", "data_prep."))
    assert not ours, f"{module} is missing from the order"
    return None


# Old modules of commands, which only forward to the new ones.
OLD_PLACES = ["u2net_tf.networks.complexity"]
# The packages themselves are not in the order: they export names of their layers.
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
    own = layer_of(name_of(path))
    for module in imports_of(path):
        layer = layer_of(module)
        assert not module.startswith(("data_prep", "tools", "tests")), module
        if layer is not None:
            assert ORDER.index(layer) <= ORDER.index(own), f"{module} is below"
            assert layer == own or layer not in COMMANDS, f"{module} is a command"


# Modules that may define flags: the parts of a command, and the commands.
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
def test_data_prep_uses_the_first_layers(path):
    for module in imports_of(path):
        assert not module.startswith(("tools", "tests")), module
        assert layer_of(module) in (None, *FOR_DATA_PREP, *STAGES), module


@pytest.mark.parametrize("path", PREPARATION, ids=name_of)
def test_a_stage_uses_earlier_stages_only(path):
    own = STAGES.index(layer_of(name_of(path)))
    for module in imports_of(path):
        stage = layer_of(module)
        if stage in STAGES:
            assert STAGES.index(stage) <= own, f"{module} is below"


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "u2net_tf" / "__init__.py",
        ROOT / "data_prep" / "__init__.py",
        *PREPARATION,
        *(
            path
            for path in LIBRARY
            if layer_of(name_of(path)) in FOR_DATA_PREP
            and name_of(path) not in WITH_TENSORFLOW
        ),
    ],
    ids=name_of,
)
def test_tensorflow_is_imported_only_where_needed(path):
    """Worker processes of `data_prep` start without it."""
    for module in imports_of(path, at_the_top=True):
        assert module.partition(".")[0] not in ("tensorflow", "keras"), module
        # Nor indirectly.
        assert not module.startswith(WITH_TENSORFLOW), module


BACKENDS = "u2net_tf.inference.backends."
INFERENCE = [
    path
    for path in LIBRARY
    if layer_of(name_of(path)) == "u2net_tf.inference"
    and not name_of(path).startswith(BACKENDS)
]


@pytest.mark.parametrize("path", INFERENCE, ids=name_of)
def test_only_backends_of_inference_import_tensorflow(path):
    for module in imports_of(path):
        assert module.partition(".")[0] not in ("tensorflow", "keras"), module
        assert not f"{module}.".startswith(BACKENDS), module


def test_predictor_works_without_tensorflow():
    """No indirect import brings it either."""
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
