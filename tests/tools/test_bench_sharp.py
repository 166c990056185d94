"""Our UNet# and that of PyTorch agree in the benchmark."""

import numpy as np
import pytest

from tools.bench import flags as bench_flags
from tools.bench import sharp, sharp_networks
from tools.bench.sharp_networks import SharpSetting

TINY = {"patch_size": (8, 8, 16), "depth": 2, "base_channels": 2}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the extra `bench`")


def test_names_in_pytorch():
    names = {
        "stem/conv/kernel_0": "stem.conv.weight",
        "node_0_1/unit_2/conv/bias": "node_0_1.unit_2.conv.bias",
        "node_0_1/unit_1/depthwise_norm/gamma_0": (
            "node_0_1.unit_1.depthwise_norm.weight"
        ),
        "head_1_3/beta_0": "head_1_3.bias",
    }
    assert {path: sharp_networks.torch_name(path) for path in names} == names


def test_contenders():
    setting = SharpSetting(**TINY)
    steps, forward = (
        sharp.contenders(part, setting, ["channels_last"])
        for part in ("step", "forward")
    )
    assert [each.name for each in forward] == ["ours", "PyTorch, channels last"]
    assert [each.arguments.get("gradient_checkpointing") for each in steps] == [
        "none",
        "blocks",
        None,
    ]
    assert all(each.arguments["setting"] == setting for each in (*steps, *forward))


@pytest.mark.slow
@pytest.mark.parametrize("adapter", sharp_networks.ADAPTERS)
def test_parameters_have_the_same_names_and_shapes(torch, adapter):
    setting = SharpSetting(**TINY, adapter=adapter)
    network = sharp_networks.build_torch(setting, "channels_first")
    ours = sharp_networks.build_ours(setting).variables_by_path()
    names = {sharp_networks.torch_name(path): path for path in ours}
    assert names.keys() == network.state_dict().keys()
    for name, values in network.state_dict().items():
        # Both are drawn from the name, so that the values agree.
        found = np.sort(ours[names[name]].numpy(), axis=None)
        np.testing.assert_array_equal(found, np.sort(values.numpy(), axis=None))


@pytest.mark.slow
@pytest.mark.parametrize("layout", bench_flags.TORCH_LAYOUTS)
@pytest.mark.parametrize("adapter", sharp_networks.ADAPTERS)
def test_same_logits_losses_and_gradients(torch, adapter, layout):
    setting = SharpSetting(**TINY, adapter=adapter)
    ours = sharp_networks.make_our_forward(setting)
    theirs = sharp_networks.make_torch_forward(setting, layout)
    found, expected = (task.results(task.run())["logits"] for task in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    ours = sharp_networks.make_our_steps(setting, "none")
    theirs = sharp_networks.make_torch_steps(setting, layout)
    found, expected = (task.results(task.run()) for task in (ours, theirs))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    losses = [[task.run() for _ in range(3)] for task in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
