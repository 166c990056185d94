"""Weights in PyTorch's files are ported to models with the same logits."""

import collections
import dataclasses
import importlib.util
import io
import json
import pathlib
import sys
import types
import warnings

import nibabel as nib
import numpy as np
import pytest
from command_server import arguments_of
from command_session import session
from toy import ONE, PLAN, TWO

from u2net_tf.errors import InputError, StoppedError
from u2net_tf.models.build import build_network
from u2net_tf.models.loading import load_network, load_spec, load_spec_and_state
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.parameter_counts import network_without_values
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.published_weights import torch_files
from u2net_tf.published_weights.porting import port, summary
from u2net_tf.published_weights.structure import Structure, read_structure
from u2net_tf.published_weights.torch_files import read_published
from u2net_tf.published_weights.variables import (
    DENSE,
    DEPTHWISE,
    load_published_weights,
    published_variables,
)

pytestmark = pytest.mark.usefixtures("plain_implementation")

MODULE = "u2net_tf.port_torch_weights"
ADAPTERS = {
    "shared": "none",
    "universal_separable": "separable",
    "universal_series": "series",
    "universal_parallel": "parallel",
}


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch writes and reads .pth: pip install 'u2net-tf[torch]'"
    )


def golden_parts(golden_dir, name):
    """Returns the arrays of a golden file and the spec of its network."""
    with np.load(golden_dir / f"{name}.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    config = json.loads(str(arrays["config"]))
    size = tuple(config["patch"])
    domains = [dataclasses.replace(domain, patch_size=size) for domain in PLAN.domains]
    assert [domain.num_modalities for domain in domains] == config["modalities"]
    assert [domain.num_classes for domain in domains] == config["classes"]
    spec = ModelSpec(
        plan=Plan(tuple(domains)),
        pools=tuple(config["num_pool_per_axis"]),
        base_channels=config["base_channels"],
        adapter=ADAPTERS[name],
    )
    return arrays, spec


def params_of(arrays):
    return {
        name.removeprefix("param/"): array
        for name, array in arrays.items()
        if name.startswith("param/")
    }


def assert_golden_logits(model_dir, arrays, name):
    _, network, _ = load_network(model_dir)
    for domain in (0, 1):
        image = np.moveaxis(arrays[f"domain{domain}/image"], 1, -1)
        expected = np.moveaxis(arrays[f"domain{domain}/logits"], 1, -1)
        # `test_float32` in test_golden.py explains the tolerances.
        tolerance = 2e-3 if name == "universal_separable" else 1e-4
        logits = network(image.astype(np.float32), domain=domain)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


def save_training_checkpoint(torch, path, params, *, zipped, payload=None):
    """Saves a `.pth.tar` like the published training's, and removes its classes."""
    # The class is in a file, as PyTorch before 1.6 pickled a network's source code too.
    source = path.parent / "models.py"
    source.write_text("import torch\n\n\nclass u2net3d(torch.nn.Module):\n    pass\n")
    module_spec = importlib.util.spec_from_file_location("models", source)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    sys.modules["models"] = module
    try:
        network = module.u2net3d()
        for name, array in params.items():
            holder = network
            *parents, last = name.split(".")
            for part in parents:
                if part not in dict(holder.named_children()):
                    holder.add_module(part, torch.nn.Module())
                holder = getattr(holder, part)
            setattr(holder, last, torch.nn.Parameter(torch.from_numpy(array.copy())))
        model = torch.nn.DataParallel(network)
        optimizer = torch.optim.Adam(model.parameters())
        loss = sum((parameter**2).sum() for parameter in model.parameters())
        loss.backward()
        optimizer.step()
        for name, parameter in network.named_parameters():
            parameter.data.copy_(torch.from_numpy(params[name].copy()))
        content = {
            "epoch": 300,
            "model": model,
            "model_state_dict": model.state_dict(),
            "optimizer": optimizer,
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": torch.tensor(0.5),
            "trLoss_queue": collections.deque([0.6, 0.5], maxlen=20),
            "last_trLoss_ma": np.float64(0.55),
        }
        if payload is not None:
            content["trLoss_queue"] = payload
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    finally:
        del sys.modules["models"]


@pytest.mark.parametrize(
    "name",
    [
        "shared",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ADAPTERS
            if name != "shared"
        ),
    ],
)
class TestGolden:
    def test_npz(self, golden_dir, name, tmp_path):
        arrays, spec = golden_parts(golden_dir, name)
        text = summary(port(golden_dir / f"{name}.npz", spec, tmp_path / "model"))
        count = sum(array.size for array in params_of(arrays).values())
        assert f"{count:,} parameters in {len(params_of(arrays))} arrays" in text
        assert "domain 1: Task92_Two, T2, ADC -> background, rim, core" in text
        assert load_spec(tmp_path / "model") == spec
        assert_golden_logits(tmp_path / "model", arrays, name)

    @pytest.mark.slow
    def test_pth(self, golden_dir, name, tmp_path, torch):
        arrays, spec = golden_parts(golden_dir, name)
        tensors = {k: torch.from_numpy(v) for k, v in params_of(arrays).items()}
        torch.save(tensors, tmp_path / "weights.pth")
        port(tmp_path / "weights.pth", spec, tmp_path / "model")
        assert_golden_logits(tmp_path / "model", arrays, name)

    # Before PyTorch 1.6, and so in 2019, files were not zip files.
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.slow
    def test_checkpoint_of_the_training(
        self, golden_dir, name, tmp_path, torch, zipped
    ):
        arrays, spec = golden_parts(golden_dir, name)
        path = tmp_path / "epoch300.pth.tar"
        save_training_checkpoint(torch, path, params_of(arrays), zipped=zipped)
        text = summary(port(path, spec, tmp_path / "model"))
        assert "used: model_state_dict; ignored: epoch, last_trLoss_ma, loss, " in text
        assert "the DataParallel prefix 'module.' of" in text
        assert_golden_logits(tmp_path / "model", arrays, name)


class Payload:
    """Runs code when it is unpickled: writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.write_text, (self.path, "run"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.slow
def test_no_code_in_a_file_is_executed(tmp_path, torch, zipped):
    marker = tmp_path / "marker"
    path = tmp_path / "evil.pth.tar"
    params = {"a.weight": np.ones(3, np.float32)}
    save_training_checkpoint(
        torch, path, params, zipped=zipped, payload=Payload(marker)
    )
    read = read_published(path)
    assert "no code was executed" in read.notes[0]
    np.testing.assert_array_equal(read.params["a.weight"], np.ones(3))
    assert not marker.exists()
    # Loading the file without this protection runs the payload.
    sys.modules["models"] = types.ModuleType("models")
    sys.modules["models"].u2net3d = torch.nn.Module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=False)
    finally:
        del sys.modules["models"]
    assert marker.exists()


SPEC = ModelSpec(plan=PLAN, pools=(1, 2, 0), base_channels=2, adapter="parallel")
SPEC = dataclasses.replace(SPEC, patch_size=(4, 8, 5))


def to_torch(array, layout):
    if layout == DENSE:
        return np.transpose(array, (4, 3, 0, 1, 2))
    return np.transpose(array, (3, 0, 1, 2))[:, None] if layout == DEPTHWISE else array


def state_dict_of(network):
    return {
        name: np.ascontiguousarray(to_torch(variable.numpy(), layout))
        for name, layout, variable in published_variables(network)
    }


@pytest.fixture(scope="module")
def params():
    return state_dict_of(build_network(SPEC))


@pytest.fixture
def weights(tmp_path, params):
    """Writes an .npz of the parameters, some of them changed; returns its path."""

    def write(**changes):
        path = tmp_path / "weights.npz"
        arrays = {**params, **changes}
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
        return path

    return write


def error_of(weights, spec, tmp_path):
    """Returns the error message of a port that creates no model."""
    with pytest.raises(InputError) as error:
        port(weights, spec, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    message = str(error.value)
    assert message.startswith((str(weights), "patch_size"))
    return message


def test_bare_names(weights, tmp_path, params):
    port(weights(), SPEC, tmp_path / "model")
    spec, network, _ = load_network(tmp_path / "model")
    assert spec == SPEC
    ported = state_dict_of(network)
    assert ported.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(ported[name], array)


@pytest.mark.parametrize("adapter", ADAPTERS.values())
@pytest.mark.parametrize("second_up_conv", ["full", "pointwise"])
def test_structure(adapter, second_up_conv):
    network = network_without_values(
        (1, 2),
        (2, 3),
        pools=SPEC.pools,
        base_channels=2,
        adapter=adapter,
        second_up_conv=second_up_conv,
    )
    zeros = {
        name: to_torch(np.zeros(variable.shape), layout)
        for name, layout, variable in published_variables(network)
    }
    assert read_structure(zeros) == Structure(
        num_modalities=(1, 2),
        num_classes=(2, 3),
        base_channels=2,
        num_pools=2,
        adapter=adapter,
        second_up_conv=second_up_conv,
    )


class TestContradictions:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"plan": Plan((ONE,))},
                "in_tr_list.0 … in_tr_list.1: expected 2 domains in `plan` and "
                "`domains`, in the order of the published --tasks. Received: 1 "
                "(Task91_One)",
            ),
            (
                {"plan": Plan((TWO, ONE))},
                "in_tr_list.0.op1.0.weight: expected 1 modality in domain Task92_Two "
                "of the plan. Received: 2. Change the order of `domains`",
            ),
            (
                {"plan": Plan((TWO, ONE))},
                "out_tr_list.1.conv1.weight: expected 3 classes in domain Task91_One "
                "of the plan. Received: 2",
            ),
            ({"base_channels": 4}, "expected `base_channels`=2. Received: `base_chann"),
            (
                {"adapter": "series"},
                "expected `adapter`=parallel. Received: `adapter`=s",
            ),
            (
                {"second_up_conv": "full"},
                "expected `last_decoder_kernel`=1. Received: `last_decoder_kernel`=3",
            ),
            (
                {"pools": (0, 1, 0)},
                "down_samps.0 … down_samps.1: expected `pools` with a maximum of 2. "
                "Received: `pools`=0,1,0",
            ),
            ({"patch_size": (4, 6, 5)}, "patch_size: expected sizes divisible by 2*"),
        ],
    )
    def test_suggest_the_right_flag(self, weights, tmp_path, changes, words):
        spec = dataclasses.replace(SPEC, **changes)
        assert words in error_of(weights(), spec, tmp_path)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"down_samps.0.op1.conv.bias": None},
                "missing names ['down_samps.0.op1.conv.",
            ),
            ({"more.weight": np.zeros(3, np.float32)}, "unknown names ['more.weight']"),
            (
                {"down_blocks.1.op1.conv.bias": np.zeros(3, np.float32)},
                "down_blocks.1.op1.conv.bias: (3,) instead of (4,)",
            ),
            (
                {"down_blocks.1.op1.conv.bias": np.zeros(4)},
                "down_blocks.1.op1.conv.bias: expected float32. Received: float64",
            ),
            (
                {"down_blocks.1.op1.conv.bias": np.full(4, np.nan, np.float32)},
                "down_blocks.1.op1.conv.bias: expected finite numbers",
            ),
            ({"in_tr_list.1.op1.0.weight": None}, "0 modalities in domain Task92_Two"),
            (
                {"in_tr_list.0.op1.0.weight": None},
                "expected names and shapes of the published network, such as in_tr",
            ),
        ],
    )
    def test_names_the_parameter(self, weights, tmp_path, changes, words):
        assert words in error_of(weights(**changes), SPEC, tmp_path)


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_depthwise_kernel_has_one_input(inputs):
    model = build_network(dataclasses.replace(SPEC, adapter="separable"))
    params = {}
    for name, layout, variable in published_variables(model):
        array = np.zeros(variable.shape, np.float32)
        if layout == DENSE:
            array = np.transpose(array, (4, 3, 0, 1, 2))
        elif layout == DEPTHWISE:
            array = np.transpose(array, (3, 0, 1, 2))[:, np.newaxis]
        params[name] = array
    load_published_weights(model, params)
    name = "down_blocks.0.op1.adapOps.0.conv1.weight"
    channels, _, *size = params[name].shape
    params[name] = np.zeros((channels, inputs, *size), np.float32)
    with pytest.raises(ValueError, match=rf"{name}: \({channels}, {inputs}, 3, 3, 3\)"):
        load_published_weights(model, params)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("no.npz", None, "expected a file with weights. Received: no such file"),
            (
                "weights.h5",
                b"",
                "expected a name ending in .npz, .pth, .pt, .pth.tar. Rec",
            ),
            (
                "weights.npz",
                b"PK",
                "expected an .npz file with arrays. Received: a different",
            ),
            (
                "weights.npz",
                b"",
                "expected an .npz file with arrays. Received: a different",
            ),
        ],
    )
    def test_no_weights(self, tmp_path, name, content, words):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert words in error_of(tmp_path / name, SPEC, tmp_path)

    def test_npz_of_objects(self, tmp_path):
        np.savez(tmp_path / "weights.npz", a=np.array([{}], object))
        words = "expected an .npz file with arrays"
        assert words in error_of(tmp_path / "weights.npz", SPEC, tmp_path)

    def test_npz_that_is_an_npy(self, tmp_path):
        np.save(tmp_path / "weights.npy", np.zeros(3))
        (tmp_path / "weights.npy").rename(tmp_path / "weights.npz")
        words = "expected an .npz file with arrays"
        assert words in error_of(tmp_path / "weights.npz", SPEC, tmp_path)

    def test_empty_npz(self, tmp_path):
        np.savez(tmp_path / "weights.npz")
        words = "expected parameters. Received: none"
        assert words in error_of(tmp_path / "weights.npz", SPEC, tmp_path)

    @pytest.mark.parametrize("length", [0, 1, 200, -200])
    @pytest.mark.slow
    def test_damaged_pth(self, tmp_path, torch, params, length):
        stream = io.BytesIO()
        torch.save({k: torch.from_numpy(v) for k, v in params.items()}, stream)
        path = tmp_path / "weights.pth"
        path.write_bytes(stream.getvalue()[:length])
        words = "expected a file written by torch.save"
        assert words in error_of(path, SPEC, tmp_path)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                [1, 2],
                "expected a state dict, or a checkpoint that contains one. Received",
            ),
            (
                {"model": 1, "epoch": 2},
                "values that are not tensors: ['epoch', 'model']",
            ),
            ({"model_state_dict": {"a": 1}}, "values that are not tensors: ['a']"),
            ({}, "expected parameters. Received: none"),
            ("bfloat16", "float32 tensors. Received: ['a: torch.bfloat16']"),
            ("sparse", "float32 tensors. Received: ['a: torch.float32']"),
            ("number", "float32 tensors. Received: ['1: torch.float32']"),
        ],
    )
    @pytest.mark.slow
    def test_other_content(self, tmp_path, torch, content, words):
        if isinstance(content, str):
            content = {
                "bfloat16": {"a": torch.zeros(2, dtype=torch.bfloat16)},
                "sparse": {"a": torch.zeros(2, 2).to_sparse()},
                "number": {1: torch.zeros(2)},
            }[content]
        torch.save(content, tmp_path / "weights.pth")
        assert words in error_of(tmp_path / "weights.pth", SPEC, tmp_path)

    @pytest.mark.slow
    def test_a_prefix_of_some_names_is_kept(self, tmp_path, torch):
        torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
        assert set(read_published(tmp_path / "w.pth").params) == {"module.a", "b"}

    def test_models_in_subfolders_are_not_hidden(self, tmp_path):
        folder = tmp_path / "models" / "a" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "step-0.index").touch()
        with pytest.raises(InputError, match="without models in its subfolders"):
            port(tmp_path / "no.npz", SPEC, tmp_path / "models")

    def test_without_pytorch(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        (tmp_path / "weights.pth").touch()
        with pytest.raises(StoppedError, match="pip install 'u2net-tf.torch.'"):
            read_published(tmp_path / "weights.pth")

    def test_the_extra_that_the_message_names_exists(self):
        setup = pathlib.Path(__file__).parents[2] / "setup.py"
        assert '"torch": TORCH' in setup.read_text()
        assert "u2net-tf[torch]" in torch_files.INSTALL_TORCH


class TestCommand:
    # The slow variant runs in a new interpreter.
    @pytest.mark.parametrize(
        "runner", ["run_warm", pytest.param("run_command", marks=pytest.mark.slow)]
    )
    def test_every_flag_has_an_effect(self, runner, request, tmp_path):
        run = request.getfixturevalue(runner)
        spec = ModelSpec(
            plan=Plan((TWO, ONE)),
            pools=(0, 1, 2),
            base_channels=3,
            adapter="series",
            second_up_conv="full",
            patch_size=(3, 6, 8),
            resize_method="cubic",
        )
        np.savez(tmp_path / "weights.npz", **state_dict_of(build_network(spec)))
        (tmp_path / "plan.json").write_text(plan_to_json(PLAN), encoding="utf-8")
        flags = {
            "weights": tmp_path / "weights.npz",
            "plan": tmp_path / "plan.json",
            "domains": "Task92_Two,Task91_One",
            "model_dir": tmp_path / "model",
            "pools": "0,1,2",
            "base_channels": 3,
            "adapter": "series",
            "last_decoder_kernel": 3,
            "patch_size": "3,6,8",
            "resize_method": "cubic",
        }
        done = run(MODULE, **flags)
        found, state = load_spec_and_state(tmp_path / "model")
        assert found == spec
        # What the weights were trained on is unknown.
        names = [seen.domain for seen in state.initial_cases]
        assert tuple(names) == spec.plan.names
        assert not any(seen.complete for seen in state.initial_cases)
        assert f"{tmp_path / 'model' / 'checkpoints' / 'step-0'}: " in done.stdout
        for name, words in (
            ("weights", "--weights: expected a value. Received: none"),
            ("pools", "with pools (1, 1, 1). Received: (3, 6, 8) for Task92_Two"),
        ):
            without = {key: value for key, value in flags.items() if key != name}
            assert words in run(MODULE, status=1, **without).stderr
        again = run(MODULE, status=1, **flags).stderr
        assert "expected a folder without a model. Received: " in again


def test_predict_uses_a_ported_model(tiny_data, tmp_path, params):
    np.savez(tmp_path / "weights.npz", **params)
    spec = dataclasses.replace(SPEC, plan=tiny_data.plan)
    port(tmp_path / "weights.npz", spec, tmp_path / "model")
    scan = tiny_data.raw_dir / "Task92_Two" / "imagesTr" / "two_0.nii.gz"
    flags = {
        "model_dir": tmp_path / "model",
        "domain": "Task92_Two",
        "input": scan,
        "output": tmp_path / "out",
    }
    line = {"predict": arguments_of(flags)}
    done = session("u2net_tf.predict", line, execution="plain")["predict"]
    assert done["status"] == 0, done
    assert nib.load(tmp_path / "out" / "two_0.nii.gz").shape == (12, 12, 10)
