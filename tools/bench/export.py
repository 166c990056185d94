"""Compares exported networks with compiled TensorFlow and with PyTorch's export.

    python -m tools.bench.export --patch_sizes=64 --output=export64.json

Runs one domain of the universal network, from patches to probabilities, in TensorFlow
as used for prediction, as a SavedModel, in onnxruntime and in OpenVINO. PyTorch's
export of the same network runs in onnxruntime and OpenVINO. Needs the extras `export`
and `bench`.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import pathlib
import tempfile

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Task, check_agreement, measure
from tools.bench.networks import build_ours
from tools.bench.setting import Setting, build_torch, draw_batch
from tools.bench.step import LARGEST_TOGETHER
from u2net_tf import command

# Difference of the blocks' probabilities: with random weights, each of the 60
# consecutive norms magnifies the rounding errors before it.
TOLERANCE = 2e-2
COLUMNS = (
    reporting.Column("patch", "patch"),
    reporting.CONTENDER,
    *reporting.TIMES,
    *reporting.MEMORY,
)
# Largest edge of the blocks whose mean probabilities are compared, voxels.
BLOCK = 16
OURS, TORCH, SAVED_MODEL = "ours.onnx", "torch.onnx", "saved_model"


def make_compiled(setting: Setting) -> Task:
    """Returns the task of our network as prediction runs it, partly XLA-compiled."""
    network = build_ours(setting)
    import tensorflow as tf

    image = draw_batch(setting, 0)[0]

    @tf.function(input_signature=[tf.TensorSpec(image.shape)], autograph=False)
    def segment(image):
        return tf.nn.softmax(network(image, domain=0, training=False))

    return Task(lambda: segment(image).numpy(), _results)


def make_saved_model(setting: Setting, folder: str) -> Task:
    """Returns the task of the SavedModel in TensorFlow."""
    import tensorflow as tf

    segment = tf.saved_model.load(f"{folder}/{SAVED_MODEL}").signatures["segment_0"]
    image = tf.constant(draw_batch(setting, 0)[0])
    return Task(lambda: segment(image)["probabilities"].numpy(), _results)


def make_onnxruntime(
    setting: Setting, folder: str, name: str, threads: int, channels_first: bool
) -> Task:
    """Returns the task of an ONNX file in onnxruntime."""
    from u2net_tf.export_packages import import_package

    onnxruntime = import_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        f"{folder}/{name}", options, providers=["CPUExecutionProvider"]
    )
    image = _image(setting, channels_first)
    (node,) = session.get_inputs()

    def run():
        return session.run(None, {node.name: image})[0]

    return Task(run, _channels_first_results if channels_first else _results)


def make_openvino(
    setting: Setting, folder: str, name: str, threads: int, channels_first: bool
) -> Task:
    """Returns the task of a file in OpenVINO, in float32."""
    from u2net_tf.export_packages import openvino_core

    core = openvino_core()
    compiled = core.compile_model(
        f"{folder}/{name}",
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    image = _image(setting, channels_first)
    return Task(
        lambda: compiled([image])[0],
        _channels_first_results if channels_first else _results,
    )


def _image(setting: Setting, channels_first: bool) -> np.ndarray:
    image = draw_batch(setting, 0)[0]
    return np.ascontiguousarray(np.moveaxis(image, -1, 1)) if channels_first else image


def _results(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the means of blocks, which rounding affects less than single voxels.

    The drawn weights amplify the rounding of the norms' sums; trained ones do so less.
    """
    batch, *shape, channels = probabilities.shape
    edges = [math.gcd(size, BLOCK) for size in shape]
    pairs = zip(shape, edges, strict=True)
    parts = [part for size, edge in pairs for part in (size // edge, edge)]
    blocks = probabilities.reshape(batch, *parts, channels)
    return {"probabilities": blocks.mean(axis=(2, 4, 6))}


def _channels_first_results(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    return _results(np.moveaxis(probabilities, 1, -1))


def write_ours(setting: Setting, folder: str) -> None:
    """Exports domain 0 of our network: ONNX, OpenVINO and SavedModel."""
    network = build_ours(setting)
    from u2net_tf.exporting.onnx_model import to_onnx
    from u2net_tf.exporting.openvino_model import save_openvino
    from u2net_tf.exporting.saved_model import Source, save_saved_model

    spec = _spec(setting)
    model = to_onnx(network, spec, 0, fingerprint="drawn")
    pathlib.Path(folder, OURS).write_bytes(model.SerializeToString())
    save_openvino(model, pathlib.Path(folder, OURS).with_suffix(".xml"))
    source = Source(network, spec, 0, "drawn")
    save_saved_model([source], pathlib.Path(folder, SAVED_MODEL))


def _spec(setting: Setting):
    """Returns the spec of our network; its domains are named by their index."""
    from u2net_tf.models.spec import ModelSpec
    from u2net_tf.plan.domains import Domain, Plan
    from u2net_tf.plan.labels import Label

    domains = tuple(
        Domain(
            name=str(index),
            raw_dir="unset",
            modalities=tuple(map(str, range(num_modalities))),
            labels=tuple(Label(str(k), (k,)) for k in range(num_classes)),
            spacing_mm=(1.0, 1.0, 1.0),
            median_shape=setting.patch_size,
            patch_size=setting.patch_size,
            pools=setting.pools,
            batch_size=1,
        )
        for index, (num_modalities, num_classes) in enumerate(
            zip(setting.num_modalities, setting.num_classes, strict=True)
        )
    )
    return ModelSpec(
        plan=Plan(domains), pools=setting.pools, base_channels=setting.base_channels
    )


def write_torch(setting: Setting, folder: str) -> None:
    """Exports domain 0 of the PyTorch network with PyTorch's exporter and layout."""
    import torch

    network = build_torch(setting, "channels_first").eval()

    class Segment(torch.nn.Module):
        """Predicts the probabilities of the first domain."""

        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            return torch.softmax(self.network(image, 0), dim=1)

    image = torch.from_numpy(_image(setting, channels_first=True))
    torch.onnx.export(Segment(), (image,), f"{folder}/{TORCH}", external_data=False)


def benchmark(setting: Setting, *, runs: int, threads: int) -> list[dict]:
    """Measures one patch size; returns the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        for write in (write_ours, write_torch):
            process = multiprocessing.get_context("spawn").Process(
                target=write, args=(setting, folder)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise command.StoppedError(f"{write.__name__}: export failed")
        common = {"setting": setting, "folder": folder}
        ours, torch = (
            {**common, "threads": threads, "name": name, "channels_first": first}
            for name, first in ((OURS, False), (TORCH, True))
        )
        intermediate = {**ours, "name": OURS.replace(".onnx", ".xml")}
        measured = measure(
            [
                Contender("compiled TensorFlow", make_compiled, {"setting": setting}),
                Contender("SavedModel", make_saved_model, common),
                Contender("onnxruntime", make_onnxruntime, ours),
                Contender("OpenVINO", make_openvino, intermediate),
                Contender("onnxruntime, PyTorch's export", make_onnxruntime, torch),
                Contender("OpenVINO, PyTorch's export", make_openvino, torch),
            ],
            runs=runs,
            threads=threads,
            together=max(setting.patch_size) <= LARGEST_TOGETHER,
        )
    largest = check_agreement(measured, TOLERANCE)
    print(f"{setting.patch_size}: probabilities differ by at most {largest:.1e}")
    return reporting.rows_of(measured, patch="×".join(map(str, setting.patch_size)))


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=5, torch=False)
    bench_flags.define_network_flags()
    flags.FLAGS.set_default("batch_size", 1)
    flags.DEFINE_list("patch_sizes", ["64", "128"], "Edges of the patches in voxels.")


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    for package in ("tf2onnx", "onnxruntime", "openvino", "torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise command.StoppedError(
                f"this benchmark needs {package}, which is not installed: "
                "pip install 'u2net-tf[export,bench]'"
            )
    options = bench_flags.network_options()
    rows = []
    for size in bench_flags.cubes("patch_sizes", options["pools"]):
        rows += benchmark(
            Setting(patch_size=size, **options),
            runs=flags.FLAGS.runs,
            threads=bench_flags.num_threads(),
        )
    return reporting.Report("export", COLUMNS, rows)


if __name__ == "__main__":
    runner.run(define_flags, report)
