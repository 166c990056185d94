"""The network as XLA modules computes the same without TensorFlow."""

import ast
import gzip
import importlib.metadata
import json
import pathlib
import subprocess
import venv

import numpy as np
import pytest
from command_session import python

from tools.bench.hlo import plan, run
from tools.bench.setting import Setting

TOOLS = pathlib.Path(run.__file__).parents[1]
# Files that run on machines with only NumPy, absl-py and JAX or PyTorch.
STANDALONE = (
    "hlo/implementations.py",
    "hlo/plan.py",
    "hlo/run.py",
    "hlo/torch_step.py",
    "hlo/ways.py",
    "setting.py",
    "torch_network.py",
)
SMALL = ("--pools=1,1,0", "--base_channels=2", "--batch_size=1", "--patch_sizes=8")


@pytest.mark.parametrize("name", STANDALONE)
def test_standalone_files_do_not_import_the_package(name):
    imported = set()
    for node in ast.walk(ast.parse((TOOLS / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {module for module in imported if module.startswith("tools")} <= {
        f"tools.bench.{path.removesuffix('.py').replace('/', '.')}"
        for path in STANDALONE
    }
    others = {module.partition(".")[0] for module in imported}
    assert others.isdisjoint(
        {"u2net_tf", "data_prep", "tensorflow", "keras", "pydantic"}
    )


class TestDifference:
    def test_is_relative_to_the_largest_logit(self):
        expected = {"logits": np.array([[1.0, -4.0]])}
        assert run.difference(expected, {"logits": np.array([[1.0, -3.0]])}) == 0.25

    def test_of_gradient_norms_is_relative_to_the_largest(self):
        expected = {
            "loss": np.array(2.0),
            "norm/a": np.array(8.0),
            "norm/b": np.array(0),
        }
        found = {
            "loss": np.array(2.0),
            "norm/a": np.array(8.0),
            "norm/b": np.array(2.0),
        }
        assert run.difference(expected, found) == 0.25

    def test_without_expected_values_is_zero(self):
        assert run.difference({}, {"loss": np.array(2.0)}) == 0


def test_norms_of_variables_make_the_norm_of_the_gradient():
    results = {"loss": np.array(9.0), "norm/a": np.array(3.0), "norm/b": np.array(4.0)}
    assert run.gradient_norm(results) == 5.0
    assert run.gradient_norm({"logits": np.zeros(2)}) is None


def test_replaced_inputs_are_read_from_the_heading():
    heading = "HloModule a, alias={ {1}: (0, {}, may-alias), {12}: (7, {}, "
    assert run.ALIAS.findall(heading) == [("1", "0"), ("12", "7")]


PLANNED = """HloModule step, is_scheduled=true

%fused (p: f32[9]) -> f32[9] {
  ROOT %add.1 = f32[9]{0} add(%p, %p)
}

ENTRY %main (a: f32[2,3], b: bf16[4]) -> (f32[2,3], pred[5]) {
  %a = f32[2,3]{1,0} parameter(0)
  %b = bf16[4]{0:T(256)} parameter(1)
  %loop_fusion.1 = f32[2,3]{1,0} fusion(%a, %a, %b), kind=kLoop, calls=%fused
  %loop_fusion.2 = (f32[2,3]{1,0}, pred[5]{0}) fusion(%loop_fusion.1), kind=kLoop
  %one = f32[2,3]{1,0} get-tuple-element(%loop_fusion.2), index=0
  %two = (f32[2,3]{1,0}, u8[7]{0}) custom-call(%one), custom_call_target="__cudnn$conv"
  ROOT %tuple = (f32[2,3]{1,0}) tuple(%one)
}
"""


def test_bytes_of_kernels_are_summed_by_kind():
    assert plan.traffic(PLANNED) == {
        # 24 + 8 + 24 bytes, and 24 + 29.
        "loop_fusion": (2, 56 + 53),
        "__cudnn$conv": (1, 24 + 31),
    }


def test_processes_compile_side_by_side_and_measure_alone(tmp_path):
    import fcntl

    path = tmp_path / "lock"

    def is_refused(operation):
        with open(path, "w") as file:
            try:
                fcntl.flock(file, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    with run.locked(str(path), exclusive=True):
        assert is_refused(fcntl.LOCK_EX)
        assert is_refused(fcntl.LOCK_SH)
    with run.locked(str(path), exclusive=False):
        assert is_refused(fcntl.LOCK_EX)
        assert not is_refused(fcntl.LOCK_SH)
    with run.locked(None, exclusive=True):
        pass


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    done = python(
        "-m",
        "tools.bench.hlo.emit",
        f"--output_dir={folder}",
        *SMALL,
        "--precision=float32",
        "--precision=bfloat16",
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_writes_the_module_that_training_compiles(tmp_path):
    """Uses the implementation of `--jit_compile` with checkpointed blocks."""
    done = python(
        "-m",
        "tools.bench.hlo.emit",
        f"--output_dir={tmp_path}",
        *SMALL,
        "--part=step",
        "--implementation=xla_module",
        "--implementation=triton",
        "--gradient_checkpointing=none",
        "--gradient_checkpointing=blocks",
        "--nocompare",
    )
    assert done.returncode == 0, done.stderr
    for name in ("xla_module", "triton"):
        plain, checkpointed = (
            gzip.decompress((folder / "module.hlo.gz").read_bytes())
            for folder in (
                tmp_path / f"step-1x8x8x8-float32-{name}",
                tmp_path / f"step-1x8x8x8-float32-{name}-blocks",
            )
        )
        assert len(checkpointed) > 1.1 * len(plain)
        assert (b"gpu.triton" in plain) == (name == "triton")


@pytest.fixture(scope="module")
def python_with_jax(tmp_path_factory):
    """An interpreter with JAX but without TensorFlow."""
    folder = tmp_path_factory.mktemp("jax")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    # Coverage is measured there, too, by this test run's package.
    measured = f"coverage=={importlib.metadata.version('coverage')}"
    packages = ["jax", "absl-py", "numpy", measured]
    subprocess.run(
        [interpreter, "-m", "pip", "install", "--quiet", *packages], check=True
    )
    return interpreter


def execute(interpreter, modules, output, *arguments):
    command = ["-m", "tools.bench.hlo.run", f"--modules_dir={modules}"]
    return subprocess.run(
        [interpreter, *command, f"--output={output}", "--runs=2", *arguments],
        cwd=TOOLS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_modules_agree_with_tensorflow(modules, python_with_jax, tmp_path):
    output, trace = tmp_path / "run.json", tmp_path / "trace"
    done = execute(python_with_jax, modules, output, f"--trace_dir={trace}")
    assert done.returncode == 0, done.stderr
    rows = {row["module"]: row for row in json.loads(output.read_text())}
    assert set(rows) == {
        f"{part}-1x8x8x8-{precision}-xla"
        for part in ("forward", "step")
        for precision in ("float32", "bfloat16")
    }
    for name, row in rows.items():
        # With such a small network, bfloat16 preserves little more than the loss.
        assert 0 < row["difference"] < (1.0 if "bfloat16" in name else 1e-3), name
        assert len(row["runs_seconds"]) == 2
        assert list((trace / name).rglob("*.xplane.pb"))
        assert "ENTRY" in (trace / name / "compiled.txt").read_text()
    losses = [rows[f"step-1x8x8x8-{p}-xla"]["first"] for p in ("float32", "bfloat16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.fixture(scope="module")
def python_with_cuda(python_with_jax):
    """The interpreter with JAX, and JAX's compiler for CUDA."""
    version = subprocess.check_output(
        [python_with_jax, "-c", "import jax; print(jax.__version__)"], text=True
    ).strip()
    packages = [f"jax-cuda12-{part}=={version}" for part in ("plugin", "pjrt")]
    pip = [python_with_jax, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, *packages], check=True)
    return python_with_jax


def plan_module(interpreter, modules, name, output):
    command = ["-m", "tools.bench.hlo.plan", f"--modules_dir={modules}"]
    subprocess.run(
        [interpreter, *command, f"--module={name}", f"--output={output}"],
        cwd=TOOLS.parents[1],
        check=True,
    )
    (row,) = json.loads(output.read_text())
    assert row["module"] == name
    return row


@pytest.mark.slow
def test_a_module_is_compiled_without_a_gpu(modules, python_with_cuda, tmp_path):
    name = "forward-1x8x8x8-float32-xla"
    row = plan_module(python_with_cuda, modules, name, tmp_path / "plan.json")
    # At least the image of 8 × 8 × 8 voxels and its logits of two classes.
    assert row["argument_bytes"] > 4 * 8**3
    assert row["working_bytes"] > 0
    assert row["operand_and_result_bytes"] > 3 * 4 * 8**3
    assert any("cudnn" in kind for kind in row["kernels"])


@pytest.mark.slow
def test_triton_kernels_are_compiled_without_a_gpu(python_with_cuda, tmp_path):
    done = python(
        "-m",
        "tools.bench.hlo.emit",
        f"--output_dir={tmp_path}",
        *SMALL,
        "--part=step",
        "--precision=bfloat16",
        "--implementation=triton",
    )
    assert done.returncode == 0, done.stderr
    name = "step-1x8x8x8-bfloat16-triton"
    row = plan_module(python_with_cuda, tmp_path, name, tmp_path / "plan.json")
    num_kernels, num_bytes = row["kernels"]["__gpu$xla.gpu.triton"]
    # Three for each depthwise convolution of a step.
    assert num_kernels > 10
    assert num_bytes > 0
    with np.load(tmp_path / name / "expected.npz") as archive:
        assert archive["loss"] > 0


@pytest.mark.slow
def test_a_step_compares_the_gradient_of_every_variable(modules):
    from tools.bench.networks import build_ours

    setting = Setting((8, 8, 8), 1, pools=(1, 1, 0), base_channels=2)
    network = build_ours(setting)
    with np.load(modules / "step-1x8x8x8-float32-xla" / "expected.npz") as archive:
        norms = [name for name in archive.files if name.startswith("norm/")]
        assert all(archive[name] > 0 for name in norms)
    assert len(norms) == len(network.shared_variables) + len(
        network.domain_variables(0)
    )


@pytest.mark.slow
def test_modules_have_their_inputs(modules):
    """Inputs are not overwritten by modules written later."""
    found = sorted(modules.glob("*/about.json"))
    assert len(found) == 4
    for path in found:
        about = json.loads(path.read_text())
        names = []
        for file in (path.parent / "variables.npz", modules / about["batch"]):
            with np.load(file) as archive:
                names += archive.files
        assert set(about["inputs"]) <= set(names)
        # A forward pass reads no optimizer state.
        assert any("/velocity/" in name for name in names) == (about["part"] == "step")


@pytest.mark.slow
def test_a_different_result_is_refused(modules, python_with_jax, tmp_path):
    name = "forward-1x8x8x8-float32-xla"
    path = modules / name / "expected.npz"
    with np.load(path) as archive:
        logits = archive["logits"]
    try:
        np.savez(path, logits=logits + 0.1 * np.abs(logits).max())
        done = execute(
            python_with_jax, modules, tmp_path / "run.json", f"--module={name}"
        )
    finally:
        np.savez(path, logits=logits)
    assert done.returncode == 1
    assert f"{name}: expected TensorFlow's values. Off by 0.09" in done.stderr
    assert not (tmp_path / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_pytorch_step_agrees_with_the_other_benchmarks(layout):
    pytest.importorskip("torch", reason="needs the extra `bench`")
    from tools.bench import networks
    from tools.bench.hlo import torch_step

    setting = Setting((8, 8, 8), 1, pools=(1, 1, 0), base_channels=2)
    step, optimizer = torch_step.make_step(
        setting, layout, compiled=False, precision="float32", device="cpu"
    )
    row = torch_step.measure(step, optimizer, 1, None)
    task = networks.make_torch_steps(setting, layout)
    expected = task.results(task.run())
    assert row["first"] == pytest.approx(float(expected["loss"]), rel=1e-6)
    assert row["gradient_norm"] == pytest.approx(
        float(expected["gradient norm"]), rel=1e-6
    )
    assert len(row["runs_seconds"]) == 1


@pytest.mark.slow
def test_ways_agree(python_with_jax, tmp_path):
    output = tmp_path / "ways.json"
    command = ["-m", "tools.bench.hlo.ways", f"--output={output}", "--shape=2,4,6,8,2"]
    limits = ["--repeats=1", "--copy_elements=1000"]
    subprocess.run(
        [python_with_jax, *command, *limits], cwd=TOOLS.parents[1], check=True
    )
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) == 2 * (10 + 9 + 2 + 2 + 2)
    for row in rows:
        assert row["difference"] < (1e-2 if row["dtype"] == "bfloat16" else 1e-5)


@pytest.mark.slow
def test_kernels_are_summed_by_name(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    from tools.bench.hlo import profile

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    for key, name in ((1, "fusion_7"), (2, "copy")):
        plane.event_metadata[key].name = name
    line = plane.lines.add()
    for key, microseconds in ((1, 30), (1, 10), (2, 2)):
        line.events.add(metadata_id=key, duration_ps=microseconds * 10**6)
    (tmp_path / "a.xplane.pb").write_bytes(space.SerializeToString())
    (tmp_path / "compiled.txt").write_text(
        '  ROOT %fusion.7 = f32[2]{0} fusion(%a), metadata={op_name="net/norm"}\n'
    )
    first, second = profile.kernels(tmp_path)
    assert first == {
        "kernel": "fusion_7",
        "count": 1,
        "seconds": pytest.approx(20e-6),
        "share": pytest.approx(40 / 42),
        "operation": "net/norm",
    }
    assert (second["kernel"], second["operation"]) == ("copy", "")


@pytest.mark.slow
def test_a_folder_without_a_trace_is_refused(tmp_path):
    from tools.bench.hlo import profile
    from u2net_tf.errors import InputError

    with pytest.raises(InputError, match="expected a trace of a GPU"):
        profile.kernels(tmp_path)
