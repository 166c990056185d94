"""Exports of the published network are as accurate as float32 allows."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import tensorflow as tf
from test_golden import FILES, Golden

from u2net_tf.export_packages import import_package, openvino_core
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.networks.u2net import U2Net
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.published_weights.variables import load_published_weights

pytestmark = pytest.mark.slow
# Allowed errors relative to TensorFlow's in float32, each measured against float64.
# OpenVINO's normalization sums the voxels of a channel one by one: see docs/serving.md.
ALLOWED = {"saved_model": 3.0, "onnxruntime": 3.0, "openvino": 25.0}


def spec_of(golden, size):
    config = golden.config
    pools = tuple(config["num_pool_per_axis"])
    numbers = zip(config["modalities"], config["classes"], strict=True)
    domains = [
        Domain(
            name=str(index),
            raw_dir="unset",
            modalities=tuple(map(str, range(modalities))),
            labels=tuple(Label(str(k), (k,)) for k in range(classes)),
            spacing_mm=(1.0, 1.0, 1.0),
            median_shape=size,
            patch_size=size,
            pools=pools,
            batch_size=1,
        )
        for index, (modalities, classes) in enumerate(numbers)
    ]
    return ModelSpec(
        plan=Plan(tuple(domains)), pools=pools, base_channels=config["base_channels"]
    )


@dataclasses.dataclass
class Case:
    patches: np.ndarray
    exact: np.ndarray
    float32: np.ndarray
    spec: ModelSpec
    network: U2Net
    domain: int


@pytest.fixture(scope="module", params=[(n, d) for n in FILES for d in (0, 1)], ids=str)
def case(request, golden_dir):
    name, domain = request.param
    found = {}
    for dtype in ("float64", "float32"):
        golden = Golden(golden_dir / f"{name}.npz", dtype)
        load_published_weights(golden.model, golden.params)
        patches = golden.batch(domain)[0].astype(dtype)
        with ops.use_implementation("plain"):
            found[dtype] = tf.nn.softmax(golden.model(patches, domain=domain)).numpy()
    spec = spec_of(golden, patches.shape[1:4])
    return Case(*[patches, *found.values(), spec, golden.model, domain])


def assert_close(case, found, name):
    allowed = float(np.abs(case.float32 - case.exact).max())
    error = float(np.abs(found - case.exact).max())
    assert error <= ALLOWED[name] * allowed, (error, allowed)


def test_saved_model(case, tmp_path):
    from u2net_tf.exporting.saved_model import Source, save_saved_model

    source = Source(case.network, case.spec, case.domain, "golden")
    (name,) = save_saved_model([source], tmp_path / "model")
    segment = tf.saved_model.load(tmp_path / "model").signatures[name]
    found = segment(patches=tf.constant(case.patches))["probabilities"].numpy()
    assert_close(case, found, "saved_model")


def test_onnx(case):
    for package in ("tf2onnx", "onnxruntime", "openvino"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the extra `export`, for {package}")
    from u2net_tf.exporting.onnx_model import to_onnx

    model = to_onnx(case.network, case.spec, case.domain, fingerprint="golden")
    content = model.SerializeToString()
    session = import_package("onnxruntime").InferenceSession(content)
    (found,) = session.run(None, {"patches": case.patches})
    assert_close(case, found, "onnxruntime")
    core = openvino_core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(content), "CPU", options)
    assert_close(case, compiled([case.patches])[0], "openvino")
