"""The commands of the benchmarks: flags, table and JSON file."""

import functools
import importlib.util
import json

import numpy as np
import pytest
from command_server import CommandServer
from command_session import python

from tools.bench import (
    depthwise,
    depthwise_ways,
    inference,
    large_scan,
    loss,
    roofline,
    sharp,
    step,
)
from tools.bench import flags as bench_flags
from tools.bench.measuring import Measurement
from tools.bench.setting import Setting
from tools.bench.sharp_networks import SharpSetting
from u2net_tf import command

COMMANDS = (
    "convert",
    "depthwise",
    "depthwise_ways",
    "export",
    "inference",
    "large_scan",
    "loss",
    "many_classes",
    "pipeline",
    "prediction",
    "profile_step",
    "reading",
    "roofline",
    "sharp",
    "start_up",
    "step",
)
SMALL = ("--pools=1,1,0", "--base_channels=2", "--batch_size=1")
OURS_ALONE = ("--skip=channels_first", "--skip=channels_last", "--threads=1")


@pytest.fixture
def run(tmp_path):
    """Runs a benchmark; returns its output, and the JSON unless it failed."""

    def run(name, *arguments, status=0):
        output = tmp_path / "new" / f"{name}.json"
        output.unlink(missing_ok=True)
        done = python("-m", f"tools.bench.{name}", f"--output={output}", *arguments)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if status:
            assert not output.exists()
            return done.stdout + done.stderr, None
        return done.stdout, json.loads(output.read_text(encoding="utf-8"))

    return run


@pytest.fixture(scope="module")
def server():
    with CommandServer("tools.bench.flags", "tools.bench.runner") as server:
        yield server


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_import_libraries(server, name):
    watched = ("tensorflow", "keras", "torch")
    done = server.run(f"tools.bench.{name}", "--help", watched=watched)
    assert done.imported == []
    assert "--output" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_required(server, name):
    done = server.run(f"tools.bench.{name}")
    assert done.returncode == 1
    assert "--output" in done.stdout + done.stderr


@pytest.mark.slow
def test_depthwise(run):
    shapes = ("--shape=1,3,4,5,2", "--shape=2,1,2,3,1")
    printed, content = run("depthwise", *shapes, *OURS_ALONE, "--runs=2")
    rows = content["rows"]
    assert [(row["shape"], row["what"], row["contender"]) for row in rows] == [
        (shape, what, name)
        for shape in ("1,3,4,5,2", "2,1,2,3,1")
        for what in ("forward", "forward + backward")
        for name in ("ours", "ours, plain")
    ]
    assert all(len(row["runs_seconds"]) == 2 for row in rows)
    assert content["machine"]["threads"] == 1
    assert "--shape=2,1,2,3,1" in content["command"]
    assert "1,3,4,5,2" in printed


@pytest.mark.slow
def test_depthwise_ways(run):
    shapes = ("--shape=2,3,4,5,2", "--up_sampled_shape=1,2,3,1,2")
    _, content = run("depthwise_ways", *shapes, "--runs=2", "--threads=1")
    rows = content["rows"]
    ways = ["padded rows", "three times the channels", "sums compiled by XLA"]
    assert [(row["shape"], row["what"], row["contender"]) for row in rows] == [
        *(("2,3,4,5,2", "kernel gradient", name) for name in ("ours", *ways)),
        *(
            ("1,2,3,1,2", what, name)
            for what in ("forward, up-sampled", "forward + backward, up-sampled")
            for name in ("ours", "materialized map")
        ),
    ]
    assert all(len(row["runs_seconds"]) == 2 for row in rows)
    assert content["machine"]["threads"] == 1


@pytest.mark.parametrize(
    ("way", "num_gradients", "compiled"),
    [
        # Three depth taps of two samples.
        ("ours", 6, False),
        ("padded rows", 3, False),
        ("three times the channels", 1, False),
        ("sums compiled by XLA", 0, True),
    ],
)
def test_kernel_gradients_use_the_expected_operations(way, num_gradients, compiled):
    import tensorflow as tf

    arrays = depthwise.draw_arrays((2, 3, 4, 5, 2))
    function = tf.function(depthwise_ways.GRADIENT_IMPLEMENTATIONS[way])
    graph = function.get_concrete_function(*map(tf.constant, arrays)).graph
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for f in functions for node in f.node_def)]
    kinds = [node.op for node in nodes]
    assert kinds.count("DepthwiseConv2dNativeBackpropFilter") == num_gradients
    assert any(f.attr["_XlaMustCompile"].b for f in functions) == compiled


def test_one_implementation_materializes_the_up_sampled_map(monkeypatch):
    from u2net_tf.networks import ops

    calls = []

    def convolve(inputs, kernel, upsample=(1, 1, 1)):
        calls.append((inputs.shape, upsample))

    monkeypatch.setattr(ops, "depthwise_conv3d", convolve)
    inputs, kernel, _ = depthwise.draw_arrays((1, 2, 3, 1, 2))
    for way in ("ours", "materialized map"):
        depthwise_ways.UP_SAMPLED_IMPLEMENTATIONS[way](inputs, kernel)
    assert calls == [((1, 2, 3, 1, 2), (2, 2, 2)), ((1, 4, 6, 2, 2), (1, 1, 1))]


@pytest.mark.slow
def test_loss(run):
    sizes = ("--patch_size=3", "--patch_size=2")
    _, content = run("loss", *sizes, *OURS_ALONE, "--runs=2")
    rows = content["rows"]
    keys = ("batch", "num_classes", "contender")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (batch, num_classes, "ours")
        for batch in ("2×3×3×3", "2×2×2×2")
        for num_classes in (2, 3)
    ]
    for row in rows:
        assert len(row["runs_seconds"]) == 2
        assert 0 <= row["added_bytes"] < row["peak_bytes"]
    assert content["machine"]["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", bench_flags.TORCH_LAYOUTS)
@pytest.mark.parametrize("num_classes", loss.NUM_CLASSES)
def test_losses_agree_with_pytorch(num_classes, layout):
    pytest.importorskip("torch", reason="needs the extra `bench`")
    tasks = [
        make(patch_size=5, num_classes=num_classes)
        for make in (loss.make_ours, functools.partial(loss.make_torch, layout))
    ]
    ours, theirs = (
        Measurement(name, (1.0,), 1, 1, task.results(task.run()))
        for name, task in zip(("ours", "theirs"), tasks, strict=True)
    )
    assert ours.results["gradient"].shape == (2, 5, 5, 5, num_classes)
    assert "losses differ by at most" in loss.check_losses([ours, theirs], 2 * 5**3)


@pytest.mark.parametrize(
    ("name", "wrong", "num_voxels"),
    [
        ("loss", 1.001, 2**22),
        ("gradient by label", 1.001, 2**22),
        ("gradient", 1.001, 2**12),
        ("gradient", 1.3, 2**22),
    ],
)
def test_different_losses_are_an_error(name, wrong, num_voxels):
    results = {key: np.ones(2) for key in ("loss", "gradient", "gradient by label")}
    right = Measurement("ours", (1.0,), 1, 1, results)
    other = Measurement("b", (1.0,), 1, 1, {**results, name: np.array([1.0, wrong])})
    # Rounding of float32 may cost 0.2 of the largest value with four million voxels.
    rounded = {**results, "gradient": np.array([1.0, 1.2])}
    assert loss.check_losses(
        [right, Measurement("c", (1.0,), 1, 1, rounded)], 2**22
    ).endswith("2.0e-01 at a voxel.")
    with pytest.raises(command.StoppedError, match=f"^{name}: expected ours and b"):
        loss.check_losses([right, other], num_voxels)


@pytest.mark.slow
def test_step(run):
    sizes = ("--patch_sizes=4,8", "--part=step", "--runs=1")
    _, content = run("step", *sizes, *SMALL, *OURS_ALONE)
    assert [
        (row["batch"], row["part"], row["contender"]) for row in content["rows"]
    ] == [
        (batch, "step", name)
        for batch in ("1×4×4×4", "1×8×8×8")
        for name in ("ours", "ours, checkpointed")
    ]


@pytest.mark.slow
def test_sharp(run):
    sizes = ("--patch_size=4", "--depth=1", "--base_channels=2", "--batch_size=1")
    chosen = ("--adapter=separable", "--notogether", "--runs=2")
    for part, names in (("forward", ["ours"]), ("step", list(sharp.OURS))):
        _, content = run("sharp", f"--part={part}", *sizes, *chosen, *OURS_ALONE)
        rows = content["rows"]
        assert [(row["part"], row["contender"]) for row in rows] == [
            (part, name) for name in names
        ]
        assert {row["batch"] for row in rows} == {"1×4×4×4"}
        assert {row["adapter"] for row in rows} == {"separable"}
        assert {len(row["runs_seconds"]) for row in rows} == {2}


def test_patch_of_sharp_must_be_divisible_for_its_depth(server):
    sizes = ("--output=sharp.json", "--patch_size=12", "--depth=3")
    done = server.run("tools.bench.sharp", *sizes)
    assert done.returncode == 1
    printed = done.stdout + done.stderr
    assert "--patch_size: expected sizes divisible by 2**pools" in printed


@pytest.mark.slow
def test_start_up(run):
    _, content = run("start_up", "--patch_size=4", *SMALL, *OURS_ALONE)
    rows = content["rows"]
    events = [f"step of domain {index}" for index in range(5)]
    assert [row["event"] for row in rows] == ["network built", *events]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


@pytest.mark.slow
def test_profile(run):
    printed, content = run("profile_step", "--patch_size=4", "--top=3", *SMALL)
    assert len(content["rows"]) == 3
    assert content["rows"][0]["kind"] in printed


@pytest.mark.slow
def test_inference(run):
    sizes = ("--volume_size=4,9,5", "--patch_size=4,4,5")
    _, content = run("inference", *sizes, *SMALL, *OURS_ALONE)
    (row,) = content["rows"]
    assert (row["volume"], row["patch"]) == ("4×9×5", "4×4×5")


@pytest.mark.slow
def test_pipeline(run):
    sizes = ("--patch_size=8", "--volume_size=16", "--patches=2", "--runs=2")
    chosen = ("--method=cubic", "--part=always", "--part=intensities")
    printed, content = run("pipeline", *sizes, *chosen, "--alone")
    rows = content["rows"]
    assert [(row["method"], row["part"], row["contender"]) for row in rows] == [
        ("cubic", "always", "ours"),
        ("cubic", "intensities", "ours"),
    ]
    for row in rows:
        assert len(row["runs_seconds"]) == 2
        assert row["patches_per_second"] == 2 / row["median_seconds"]
    assert content["machine"]["threads"] == 1
    assert "2 patches of 8³ voxels of volumes of 16³" in printed


@pytest.mark.slow
def test_convert(run):
    sizes = ("--shape=6,20,24", "--new_shape=8,15,30", "--runs=2", "--threads=2")
    printed, content = run("convert", *sizes)
    rows = content["rows"]
    names = ["ours", "SimpleITK", "SimpleITK, 2 threads"]
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert (row["shape"], row["new_shape"]) == ("6×20×24", "8×15×30")
        assert len(row["runs_seconds"]) == 2
        assert row["cases_per_minute"] == 60 / row["median_seconds"]
    assert "Results agree: they differ by at most" in printed
    _, content = run("convert", *sizes[:2], "--runs=1", "--threads=1")
    assert [row["contender"] for row in content["rows"]] == names[:2]


@pytest.mark.slow
def test_large_scan(run):
    printed, content = run("large_scan", "--volume_size=40,48,56", "--cases=3")
    rows = content["rows"]
    commands = [f"data_prep.{name}" for name in ("survey", "plan", "convert")]
    assert [row["command"] for row in rows] == [*commands, commands[-1]]
    assert [row["spacing_mm"] for row in rows[2:]] == ["1,0.8,0.8", "1.25,0.75,0.75"]
    for row in rows:
        # At least what Python and NumPy need.
        assert 2e7 < row["process_bytes"] < 4e9
        if row["command"] == "data_prep.plan":
            assert row["worker_bytes"] is None
        else:
            assert 2e7 < row["worker_bytes"] < row["process_bytes"] + 1e9
    assert "3 scans of 40×48×56 voxels of 1×0.8×0.8 mm, --num_workers=1" in printed


@pytest.mark.slow
def test_export(run):
    for package in ("tf2onnx", "onnxruntime", "openvino", "onnxscript"):
        pytest.importorskip(package)
    printed, content = run("export", *SMALL, "--patch_sizes=8", "--runs=2")
    assert [row["contender"] for row in content["rows"]] == [
        "compiled TensorFlow",
        "SavedModel",
        "onnxruntime",
        "OpenVINO",
        "onnxruntime, PyTorch's export",
        "OpenVINO, PyTorch's export",
    ]
    for row in content["rows"]:
        assert row["patch"] == "8×8×8"
        assert len(row["runs_seconds"]) == 2
    assert "(8, 8, 8): probabilities differ by at most" in printed


@pytest.mark.slow
def test_many_classes(run):
    size = ("--volume_size=40,48,56", "--classes=5", "--patch_size=16")
    printed, content = run("many_classes", *size, "--max_memory_gb=4")
    rows = content["rows"]
    assert [row["spacing_mm"] for row in rows] == ["1,0.8,0.8", "1.5,1.5,1.5"]
    assert all(2e7 < row["peak_bytes"] < 4e9 for row in rows)
    assert "5 classes, 40×48×56 voxels" in printed
    printed, _ = run("many_classes", *size, "--max_memory_gb=0.001", status=1)
    assert "scan.nii: expected at most 0 GB of memory (--max_memory_gb)" in printed


@pytest.mark.slow
def test_prediction(run):
    printed, content = run(
        "prediction",
        *("--volume_size=12,18,14", "--patch_size=8,16,8", "--pools=1,2,1"),
        *("--base_channels=4", "--runs=2", "--runtime=openvino"),
        "--runtime=tensorflow",
    )
    rows = content["rows"]
    assert [row["runtime"] for row in rows] == ["tensorflow", "openvino"]
    for row in rows:
        assert (row["volume"], row["patch"]) == ("12×18×14", "8×16×8")
        assert len(row["runs_seconds"]) == 2
        assert 0.1 < row["cpu_seconds"] < 120
        assert 5e7 < row["peak_bytes"] < 4e9
        # The labels of an untrained network are nearly ties.
        assert row["same_labels_percent"] > 95
    assert rows[0]["speed_ratio"] == 1
    assert rows[0]["same_labels_percent"] == 100
    assert "times as fast" in printed


def test_memory_of_a_failed_command_is_not_reported(tmp_path):
    missing = tmp_path / "no survey"
    with pytest.raises(command.StoppedError, match=r"data_prep.plan failed: .*survey"):
        large_scan.measure_command(
            "data_prep.plan",
            f"--survey={missing}",
            f"--output={tmp_path / 'plan.json'}",
        )


@pytest.mark.slow
def test_reading_of_volumes(run):
    choices = [f"--patches_per_volume={number}" for number in (1, 4, 0)]
    sizes = ("--volume_size=40,48,56", "--patch_size=32", "--patches=64")
    printed, content = run("reading", "--part=volumes", *choices, *sizes)
    once, four_times, chosen = content["rows"]
    assert [row["patches_per_volume"] for row in content["rows"]] == [
        "1",
        "4",
        "1 (chosen)",
    ]
    # For each patch, an image in float16 and labels, and what is read ahead.
    record = 3 * 40 * 48 * 56
    assert once["bytes_per_patch"] > record > four_times["bytes_per_patch"]
    assert chosen["bytes_per_patch"] > record
    assert "Volumes of 40×48×56 voxels, 4 of them, patches of 32³" in printed


@pytest.mark.slow
def test_reading_of_domains(run):
    counts = ("--domains=1", "--domains=3")
    _, content = run("reading", "--part=domains", "--patch_size=8", *counts)
    rows = content["rows"]
    assert [(row["part"], row["domains"]) for row in rows] == [
        ("domains", 1),
        ("domains", 3),
    ]
    for row in rows:
        assert 0 < row["added_bytes"] < row["peak_bytes"]


def test_pipeline_needs_batchgenerators(run):
    if importlib.util.find_spec("batchgenerators"):
        pytest.skip("it is installed")
    printed, _ = run("pipeline", status=1)
    assert "needs batchgenerators" in printed
    assert "u2net-tf[bench]" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "note"),
    [
        (
            Setting((4, 4, 4), batch_size=1, pools=(1, 1, 0), base_channels=2),
            "3D U²-Net: batch of 1×4×4×4",
        ),
        (
            SharpSetting((4, 4, 4), batch_size=1, depth=1, base_channels=2),
            "UNet# of depth 1, adapter none: batch of 1×4×4×4",
        ),
    ],
)
def test_roofline(monkeypatch, setting, note):
    monkeypatch.setattr(roofline, "MATRIX_EDGE", 64)
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**12)
    report = roofline.benchmark(setting, runs=1, threads=1)
    assert note in report.notes[0]
    numpy, tensorflow, copy = report.rows[:3]
    assert numpy["flops"] == tensorflow["flops"] == 2 * 64**3
    assert copy["bytes"] == 2 * 2**12
    assert copy["bytes_per_second"] == copy["bytes"] / copy["median_seconds"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("convert", ["--shape=1,2"], "--shape: expected three integers"),
        ("convert", ["--new_shape=9,9,3"], "--new_shape: expected three integers"),
        ("depthwise", ["--shape=1,2,3,4"], "--shape: expected five integers"),
        ("depthwise", ["--shape=1,2,3,4,x"], "Received: 1,2,3,4,x"),
        ("depthwise_ways", ["--shape=0,2,3,4,5"], "--shape: expected five integers"),
        ("depthwise_ways", ["--up_sampled_shape=2,3"], "--up_sampled_shape: expected"),
        ("loss", ["--patch_size=0"], "--patch_size: expected "),
        ("step", ["--patch_sizes=64,48"], "--patch_sizes: expected sizes divisible"),
        ("step", ["--patch_sizes=32"], "more than one voxel after that"),
        ("step", ["--patch_sizes=a"], "--patch_sizes: expected integers"),
        ("step", ["--pools=5,5"], "--pools: expected three integers"),
        ("step", ["--pools=0,0,0"], "--pools: expected at least one above 0"),
        ("start_up", ["--patch_size=40"], "--patch_size: expected sizes divisible"),
        ("roofline", ["--depth=3"], "--depth: expected none, as --architecture is u2n"),
        (
            "roofline",
            ["--architecture=unet_sharp", "--pools=2,2,2"],
            "--pools: expected none, as --architecture is unet_sharp",
        ),
        (
            "roofline",
            ["--architecture=unet_sharp", "--depth=3", "--patch_size=12"],
            "--patch_size: expected sizes divisible by 2**pools",
        ),
        ("inference", ["--patch_size=64,64,40"], "--patch_size: expected sizes divis"),
        ("inference", ["--volume_size=64,320,320"], "--volume_size: expected at least"),
        ("inference", ["--volume_size="], "--volume_size: expected a value"),
        ("convert", ["--shape=9,9"], "--shape: expected three integers z,y,x"),
        ("convert", ["--new_shape="], "--new_shape: expected a value"),
        ("prediction", ["--patch_size=40,40,40"], "--patch_size: expected sizes divis"),
        ("prediction", ["--pools="], "--pools: expected a value"),
        ("prediction", ["--volume_size=0,9,9"], "--volume_size: expected three"),
        (
            "large_scan",
            ["--volume_size=7,9,9"],
            "--volume_size: expected three integers",
        ),
        (
            "reading",
            ["--volume_size=99,500,500"],
            "of at least 128. Received: 99,500,500",
        ),
        ("step", ["--runs=0"], "--runs: expected "),
        ("step", ["--threads=0"], "--threads: expected "),
        ("step", ["--skip=all"], "--skip: expected "),
    ],
)
def test_invalid_flags_are_reported(server, tmp_path, name, arguments, words):
    output = tmp_path / "new" / f"{name}.json"
    done = server.run(f"tools.bench.{name}", f"--output={output}", *arguments)
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_missing_packages_are_reported(monkeypatch):
    from absl import flags as absl_flags

    values = absl_flags.FlagValues()
    absl_flags.DEFINE_multi_enum(
        "skip", [], bench_flags.TORCH_LAYOUTS, "-", flag_values=values
    )
    values(["-"])
    monkeypatch.setattr(bench_flags.flags, "FLAGS", values)
    installed = {"torch": "a spec"}
    monkeypatch.setattr(importlib.util, "find_spec", installed.get)
    assert bench_flags.torch_layouts() == ["channels_first", "channels_last"]
    with pytest.raises(command.StoppedError, match=r"needs monai.*u2net-tf\[bench\]"):
        bench_flags.torch_layouts("monai")
    values.skip = ["channels_first"]
    assert bench_flags.torch_layouts() == ["channels_last"]
    values.skip = list(bench_flags.TORCH_LAYOUTS)
    assert bench_flags.torch_layouts("monai") == []


def test_several_contenders_of_ours(monkeypatch):
    """Each of ours is a contender; the first is the reference."""
    monkeypatch.setattr(
        depthwise,
        "IMPLEMENTATIONS",
        {"ours": depthwise.IMPLEMENTATIONS["ours"], "b": sum},
    )
    monkeypatch.setattr(step, "OURS", {"ours": {}, "wide": {"name": "wide"}})
    setting = object()
    for part, ours in (("forward", ["ours"]), ("step", ["ours", "wide"])):
        found = step.contenders(part, setting, ["channels_last"])
        names = [contender.name for contender in found]
        assert names == [*ours, "PyTorch, channels last"]
    assert found[1].arguments["options"] == {"name": "wide"}


@pytest.mark.parametrize(("edge", "together"), [(96, True), (128, False)])
def test_contenders_with_large_patches_run_one_after_another(
    monkeypatch, edge, together
):
    calls = []

    def measure(contenders, **options):
        calls.append(options)
        return [Measurement(each.name, (1.0,), 1, 1, {}) for each in contenders]

    setting = Setting(patch_size=(64, edge, 32))
    for module, arguments in (
        (step, ([setting], ["forward"], [])),
        (inference, (setting, (128, 128, 128), [])),
    ):
        monkeypatch.setattr(module, "measure", measure)
        module.benchmark(*arguments, runs=7, threads=3)
    for options in calls:
        assert options["together"] == together
        assert (options["runs"], options["threads"]) == (7, 3)
