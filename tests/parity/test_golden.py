"""The published network's parameters, logits, losses and gradients."""

import json

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf import losses
from u2net_tf.networks import ops
from u2net_tf.networks.u2net import U2Net
from u2net_tf.published_weights.variables import (
    from_torch,
    load_published_weights,
    published_variables,
)

FILES = ["shared", "universal_separable", "universal_series", "universal_parallel"]


class Golden:
    """One golden file and the network it describes."""

    def __init__(self, path, dtype):
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = dict(archive)
        self.config = json.loads(str(self.arrays["config"]))
        universal = self.config["mode"] == "universal"
        self.model = U2Net(
            self.config["modalities"],
            self.config["classes"],
            pools=self.config["num_pool_per_axis"],
            base_channels=self.config["base_channels"],
            adapter=self.config["adapter"].split("_")[0] if universal else "none",
            dtype=dtype,
        )
        self.params = self.under("param/")

    def under(self, prefix):
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def batch(self, domain):
        """Returns image, labels and logits, channels last."""
        image, labels, logits = (
            self.arrays[f"domain{domain}/{name}"]
            for name in ("image", "label", "logits")
        )
        return np.moveaxis(image, 1, -1), labels, np.moveaxis(logits, 1, -1)


# The networks of the other adapters are slow here; `test_port_torch_weights.py` ports
# their weights and compares the logits.
@pytest.fixture(
    params=[
        *FILES[:2],
        *(pytest.param(name, marks=pytest.mark.slow) for name in FILES[2:]),
    ]
)
def name(request):
    return request.param


# XLA takes half a minute for the separable network. That both implementations are equal
# is tested for each operation and layer, and for networks in `test_execution.py`.
@pytest.fixture(params=["plain", pytest.param("xla", marks=pytest.mark.slow)])
def implementation(request):
    with ops.use_implementation(request.param):
        yield


# Domain 1 has two modalities and three classes.
@pytest.mark.parametrize("domain", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.usefixtures("implementation")
class TestFloat64:
    """Tests exactness in float64, in which the golden numbers were computed."""

    def test_logits_losses_and_every_gradient(self, golden_dir, name, domain):
        golden = Golden(golden_dir / f"{name}.npz", "float64")
        load_published_weights(golden.model, golden.params)
        image, labels, expected = golden.batch(domain)
        with tf.GradientTape() as tape:
            logits = golden.model(image, domain=domain)
            loss = losses.segmentation_loss(labels, logits, detach_factor=True)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)
        for part in (losses.lovasz_softmax, losses.focal):
            reference = golden.arrays[f"domain{domain}/{part.__name__.split('_')[0]}"]
            np.testing.assert_allclose(part(labels, logits), reference, atol=1e-6)
        entries = list(published_variables(golden.model))
        gradients = tape.gradient(loss, [variable.value for *_, variable in entries])
        expected = golden.under(f"domain{domain}/grad/")
        for (entry, layout, _), gradient in zip(entries, gradients, strict=True):
            if entry not in expected:
                assert gradient is None, f"{entry} belongs to the other domain"
                continue
            reference = from_torch(expected.pop(entry), layout)
            # The gradient of a bias right before a norm consists of rounding errors.
            scale = np.max(np.abs(reference))
            tolerance = 1e-5 * scale if scale > 1e-10 else 1e-10
            np.testing.assert_allclose(
                gradient, reference, rtol=0, atol=tolerance, err_msg=entry
            )
        assert not expected


# `TestFloat64` tests each network's structure; only the precision differs here.
@pytest.mark.parametrize(
    "name",
    [
        "shared",
        *(
            pytest.param(f"universal_{adapter}", marks=pytest.mark.slow)
            for adapter in ("separable", "series", "parallel")
        ),
    ],
)
@pytest.mark.parametrize("domain", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.usefixtures("implementation")
def test_float32(golden_dir, name, domain):
    # Each of up to 38 consecutive normalizations divides by a deviation that is inexact
    # in float32: PyTorch's own error of the separable network is 4e-4.
    golden = Golden(golden_dir / f"{name}.npz", "float32")
    load_published_weights(golden.model, golden.params)
    image, labels, expected = golden.batch(domain)
    logits = golden.model(image, domain=domain)
    tolerance = 2e-3 if name == "universal_separable" else 1e-4
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        losses.segmentation_loss(labels, logits),
        golden.arrays[f"domain{domain}/lovasz"]
        + golden.arrays[f"domain{domain}/focal"],
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def golden(golden_dir):
    """A golden file and its network, into which nothing is loaded."""
    golden = Golden(golden_dir / "universal_series.npz", "float32")
    golden.model.build()
    return golden


class TestLoadPublishedWeights:
    def load(self, golden, **changes):
        params = {**golden.params, **changes}
        before = golden.model.get_weights()
        params = {name: array for name, array in params.items() if array is not None}
        with pytest.raises(ValueError, match="Received: ") as error:
            load_published_weights(golden.model, params)
        assert all(map(np.array_equal, before, golden.model.get_weights()))
        return str(error.value)

    def test_names_missing_parameters(self, golden):
        name = "down_samps.1.op1.conv.bias"
        assert f"missing names ['{name}']" in self.load(golden, **{name: None})

    def test_names_unknown_parameters(self, golden):
        message = self.load(golden, **{"up_blocks.9.op1.conv.bias": np.zeros(3)})
        assert "unknown names ['up_blocks.9.op1.conv.bias']" in message

    @pytest.mark.parametrize("shape", [(4,), (4, 4, 3, 3, 1), (4, 4)])
    def test_names_parameters_of_another_shape(self, golden, shape):
        name = "down_blocks.0.op1.conv.weight"
        assert name in self.load(golden, **{name: np.zeros(shape)})
