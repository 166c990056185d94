"""ONNX graphs: their content, and agreement of onnxruntime and OpenVINO."""

import json

import numpy as np
import pytest
from converted import (
    SHARP,
    count_types,
    draw_patches,
    expected_types,
    num_groups,
    run_tensorflow,
)
from toy import ONE, TWO, make_model

from u2net_tf.errors import StoppedError
from u2net_tf.export_packages import import_package, openvino_core
from u2net_tf.models.exported import from_texts
from u2net_tf.networks.layers import DepthwiseConv3D

try:
    onnx, onnxruntime, openvino, _ = map(
        import_package, ("onnx", "onnxruntime", "openvino", "tf2onnx")
    )
except StoppedError as error:
    pytest.skip(str(error), allow_module_level=True)

from u2net_tf.exporting.onnx_model import (  # noqa: E402
    METADATA_PREFIX,
    to_onnx,
)


def texts_of(model):
    return {
        entry.key.removeprefix(METADATA_PREFIX): entry.value
        for entry in model.metadata_props
    }


def run_onnxruntime(model, patches):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["probabilities"], {"patches": patches})[0]


def run_openvino(model, patches):
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return compiled([patches])[0]


@pytest.fixture(scope="module")
def separable():
    """Domain 1 of two, with two modalities."""
    spec, network = make_model()
    return spec, network, to_onnx(network, spec, 1, fingerprint="f")


def assert_few_nodes(model, network, extra=()):
    expected, found = expected_types(network), count_types(model)
    for kind, number in expected.items():
        assert found[kind] == number, kind
    others = sum(found.values()) - sum(expected.values())
    assert others <= 0.1 * sum(expected.values()), found


class TestSeparable:
    def test_constants_have_reproducible_names_and_order(self, separable):
        *_, model = separable
        used = dict.fromkeys(name for node in model.graph.node for name in node.input)
        names = [constant.name for constant in model.graph.initializer]
        assert names == [name for name in used if name in set(names)]
        assert not any(name.startswith("const_fold_opt") for name in names)

    def test_each_operation_is_one_node(self, separable):
        _, network, model = separable
        assert_few_nodes(model, network)
        # Every depthwise convolution has as many groups as channels.
        depthwise = [group for group in num_groups(model) if group > 1]
        layers = [
            layer
            for layer in network._flatten_layers()
            if isinstance(layer, DepthwiseConv3D)
        ]
        assert sorted(depthwise) == sorted(layer.channels for layer in layers)

    @pytest.mark.parametrize("num", [1, pytest.param(3, marks=pytest.mark.slow)])
    def test_in_onnxruntime(self, separable, num):
        spec, network, model = separable
        patches = draw_patches(spec, 1, num)
        expected = run_tensorflow(spec, network, 1, patches)
        found = run_onnxruntime(model, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
        assert np.ptp(expected) > 0.05

    def test_in_openvino(self, separable):
        spec, network, model = separable
        patches = draw_patches(spec, 1)
        expected = run_tensorflow(spec, network, 1, patches)
        found = run_openvino(model, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)

    def test_shapes(self, separable):
        _, _, model = separable
        shapes = [
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        ]
        assert shapes == [["N", 4, 8, 8, 2], ["N", 4, 8, 8, 3]]
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def test_describes_itself(self, separable):
        spec, _, model = separable
        texts = texts_of(model)
        (found,) = from_texts(texts, "x.onnx")
        assert (found.name, found.fingerprint, found.any_size) == (TWO.name, "f", False)
        assert found.spec.pools == spec.pools
        assert [label["name"] for label in json.loads(texts["labels"])[TWO.name]] == [
            "background",
            "rim",
            "core",
        ]
        everything = model.SerializeToString()
        for case in (*ONE.train, *TWO.train, *TWO.test):
            assert case.encode() not in everything

    def test_weights_of_other_domains_are_left_out(self, separable):
        _, network, model = separable
        weights = [
            onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        ]
        found = {array.tobytes() for array in weights}

        def kernel(domain):
            array = network.stem.conv.kernels[domain].numpy()
            return np.ascontiguousarray(np.transpose(array, (4, 3, 0, 1, 2))).tobytes()

        assert kernel(1) in found
        assert kernel(0) not in found


CONFIGURATIONS = {
    "series": {"adapter": "series"},
    "parallel": {"adapter": "parallel"},
    "shared": {"adapter": "none", "pools": (1, 2, 2)},
    "deep": {"pools": (0, 3, 3), "second_up_conv": "pointwise"},
    "resized": {"patch_size": (8, 8, 8), "resize_method": "cubic"},
    "sharp": SHARP,
    "sharp, aligned, series": {**SHARP, "align_corners": True, "adapter": "series"},
    "sharp, plain": {**SHARP, "adapter": "none", "deep_supervision": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(name, any_size):
    settings = {"pools": (1, 0, 1), **CONFIGURATIONS[name]}
    size = (4, 8, 8)
    if any_size and "patch_size" in settings:
        pytest.skip("patches are resized")
    two = TWO.__class__(**{**vars(TWO), "patch_size": size, "pools": (1, 1, 1)})
    spec, network = make_model(domains=(ONE, two), **settings)
    model = to_onnx(network, spec, 1, fingerprint="f", any_size=any_size)
    if name != "resized":
        assert_few_nodes(model, network)
    patches = draw_patches(spec, 1)
    if any_size:
        patches = np.concatenate([patches] * 2, axis=3)
    expected = run_tensorflow(spec, network, 1, patches) if not any_size else None
    if any_size:
        expected = run_tensorflow_at_any_size(spec, network, patches)
    # The deepest maps of "deep" have as few as four voxels, and norms over so few
    # amplify rounding: differences of 3e-4 were seen.
    tolerance = 1e-3 if name == "deep" else 1e-4
    for run in (run_onnxruntime, run_openvino):
        found = run(model, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def run_tensorflow_at_any_size(spec, network, patches):
    import tensorflow as tf

    from u2net_tf.networks import ops

    with ops.use_implementation("plain"):
        return tf.nn.softmax(network(patches, domain=1, training=False)).numpy()
