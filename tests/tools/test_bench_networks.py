"""The networks of the benchmarks agree, and their operations are counted correctly."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from tools.bench import (
    depthwise,
    inference,
    networks,
    operations,
    profile_step,
    roofline,
    sharp_networks,
)
from tools.bench import flags as bench_flags
from tools.bench.measuring import Measurement
from tools.bench.setting import Setting, build_torch, draw_batch, to_torch
from tools.bench.sharp_networks import SharpSetting

# Small enough to trace in seconds; levels 2 and 1 are both supervised.
SMALL = Setting(
    patch_size=(16, 8, 24),
    pools=(3, 2, 3),
    base_channels=2,
    num_modalities=(1, 2),
    num_classes=(2, 3),
)
SHARP = SharpSetting((16, 8, 24), depth=3, base_channels=2)
# Fewer norms, so that float32 agrees over several steps.
TINY = dataclasses.replace(SMALL, patch_size=(4, 8, 6), pools=(1, 1, 0))


class TestOperations:
    def convolutions(self, setting=SMALL, **options):
        parts = operations.convolutions(
            patch_size=setting.patch_size, **setting.architecture, **options
        )
        return {part.name: part for part in parts}

    def test_depthwise_by_hand(self):
        # 16·8·24 voxels of 2 channels, 27 taps, a multiply-add each.
        part = self.convolutions()["encoder_0/unit_1/depthwise"]
        assert part.flops(batch_size=3) == 2 * 27 * 2 * 3 * 3072
        assert part.flops(batch_size=3, backward=True) == 3 * 2 * 27 * 2 * 3 * 3072
        # Two maps and 54 weights, 4 bytes each; with gradients, five maps and three
        # times the weights.
        assert part.traffic(batch_size=3) == 4 * (2 * 2 * 3 * 3072 + 54)
        backward = part.traffic(batch_size=3, backward=True)
        assert backward == 4 * (5 * 2 * 3 * 3072 + 3 * 54)

    def test_strided_by_hand(self):
        # From 16·8·24 voxels of 2 channels to 8·4·12 of 4.
        part = self.convolutions()["down_sample_0/conv"]
        assert part.kind == "strided"
        assert part.flops(batch_size=1) == 2 * 27 * 2 * 4 * 384
        assert part.traffic(batch_size=1) == 4 * (3072 * 2 + 384 * 4 + 27 * 8)

    def test_upsampling_is_free(self):
        # Level 2: 4·2·6 voxels; level 3, which does not halve axis y: 2·2·3.
        part = self.convolutions()["decoder_2/up_unit/depthwise"]
        assert (part.in_voxels, part.out_voxels) == (12, 48)
        assert self.convolutions()["decoder_2/up_unit/pointwise"].in_voxels == 48

    def test_taps_that_see_the_same_voxel_share_a_product(self):
        # Along an axis of factor 2, outputs see voxels (-1, 0) or (0, 1), that is, two
        # instead of three.
        part = self.convolutions()["decoder_0/up_unit/depthwise"]
        assert part.flops(batch_size=3) == 2 * 8 * 4 * 3 * 3072
        assert part.flops(batch_size=3, backward=True) == 3 * 2 * 8 * 4 * 3 * 3072
        # The kernel still has 27 weights per channel.
        assert part.traffic(batch_size=1) == 4 * (4 * 384 + 4 * 3072 + 27 * 4)
        # Level 3 does not halve axis y.
        part = self.convolutions()["decoder_2/up_unit/depthwise"]
        assert part.flops(batch_size=1) == 2 * (2 * 3 * 2) * 16 * 48

    @pytest.mark.parametrize(("domain", "modalities"), [(0, 1), (1, 2)])
    def test_the_batch_needs_no_gradient(self, domain, modalities):
        part = self.convolutions(domain=domain)["stem/conv"]
        assert part.kind == "dense"
        forward = 2 * 27 * modalities * 2 * 3072
        assert part.flops(batch_size=1) == forward
        assert part.flops(batch_size=1, backward=True) == 2 * forward
        traffic = part.traffic(batch_size=1, backward=True)
        weights = 27 * modalities * 2
        assert traffic == 4 * (3072 * (2 * modalities + 2 * 2) + 3 * weights)

    def test_every_kernel_of_the_domain_is_counted_once(self):
        parts = self.convolutions(dataclasses.replace(SMALL, num_modalities=(1, 1)))
        network = networks.build_ours(dataclasses.replace(SMALL, num_modalities=(1, 1)))
        variables = [*network.shared_variables, *network.domain_variables(0)]
        kernels = sum(int(np.prod(v.shape)) for v in variables if len(v.shape) >= 4)
        assert sum(part.num_weights for part in parts.values()) == kernels
        assert operations.adam_traffic(list(parts.values())) == 28 * kernels

    def test_bound_is_of_the_limiting_resource_of_each(self):
        slow = operations.Convolution("a", "pointwise", 1, 1, 1, 1000, 1000)
        options = {"batch_size": 1, "backward": False}
        # 2000 operations, 8004 bytes; then two convolutions, the second memory-bound.
        assert operations.min_seconds(
            [slow], **options, flops_per_second=1000, bytes_per_second=8004
        ) == pytest.approx(2.0)
        large = dataclasses.replace(slow, in_voxels=3000)
        assert operations.min_seconds(
            [slow, large], **options, flops_per_second=1000, bytes_per_second=4002
        ) == pytest.approx(2.0 + 16004 / 4002)

    def test_adam_is_part_of_a_step(self):
        part = operations.Convolution("a", "pointwise", 1, 1, 1, 1000, 1000)
        seconds = operations.min_seconds(
            [part], 1, backward=True, flops_per_second=1e9, bytes_per_second=28
        )
        # Five maps and three times the weight; Adam moves 28 bytes per weight.
        assert seconds == pytest.approx(4 * 5003 / 28 + 1)

    def test_rows_of_the_roofline_add_up(self):
        peaks = {"flops_per_second": 1e9, "bytes_per_second": 1e9}
        measured = {
            name: Measurement("ours", (seconds,), 0, 0, {})
            for name, seconds in (("forward", 2.0), ("step", 4.0))
        }
        rows = roofline.network_rows(SMALL, measured, peaks)
        assert [row["what"] for row in rows[::5]] == ["forward", "step"]
        for first in (0, 5):
            total, *kinds = rows[first : first + 5]
            assert total["share"] == total["least_seconds"] / total["median_seconds"]
            for key in ("flops", "bytes", "least_seconds"):
                assert sum(row[key] for row in kinds) == pytest.approx(total[key])
        assert 2.9 < rows[5]["flops"] / rows[0]["flops"] < 3


class TestOperationsOfUNetSharp:
    def convolutions(self, setting=SHARP, *, backward=True):
        parts = operations.convolutions_of(setting, backward=backward)
        return {part.name: part for part in parts}

    def test_inputs_from_below_are_projected_by_hand(self):
        # X^{0,2} has 2 channels at 16·8·24 voxels and reads X^{0,0}, X^{0,1}, then
        # X^{1,1} with 4 channels at 384 voxels and X^{2,0} with 8 at 48.
        found = self.convolutions()
        parts = [found[f"node_0_2/unit_1/conv/{index}"] for index in range(4)]
        weights = [27 * channels * 2 for channels in (2, 2, 4, 8)]
        assert [part.num_weights for part in parts] == weights
        voxels = (3072, 3072, 384, 48)
        assert [part.flops(batch_size=3) for part in parts] == [
            2 * 3 * n * weight for n, weight in zip(voxels, weights, strict=True)
        ]
        # The sum is written once, and its gradient is read once.
        values = (2 * 3072 + 2 * 3072, 2 * 3072, 4 * 384, 8 * 48)
        assert [part.traffic(batch_size=1) for part in parts] == [
            4 * (n + weight) for n, weight in zip(values, weights, strict=True)
        ]
        backward = [part.traffic(batch_size=1, backward=True) for part in parts]
        assert backward[2] == 4 * (3 * 4 * 384 + 3 * weights[2])

    def test_depthwise_inputs_are_up_sampled(self):
        found = self.convolutions(dataclasses.replace(SHARP, adapter="separable"))
        part = found["node_0_2/unit_1/depthwise/3"]
        # Along an axis, the four outputs of a voxel interpolate between (-1, 0),
        # (-1, 0, 1), (-1, 0, 1) and (0, 1).
        assert part.flops(batch_size=1) == 2 * (2 + 3 + 3 + 2) ** 3 * 8 * 48
        assert part.traffic(batch_size=1) == 4 * (8 * 48 + 8 * 3072 + 27 * 8)
        # With a factor of 2, both see (-1, 0, 1).
        part = found["node_0_2/unit_1/depthwise/2"]
        assert part.flops(batch_size=1) == 2 * 27 * 4 * 3072
        part = found["node_0_2/unit_1/pointwise"]
        assert (part.in_channels, part.in_voxels) == (16, 3072)

    def test_pooling_is_free(self):
        part = self.convolutions()["node_1_0/unit_1/conv/0"]
        assert (part.in_voxels, part.out_voxels) == (384, 384)

    def test_only_a_step_computes_all_heads(self):
        forward, step = (
            [name for name in self.convolutions(backward=each) if "head" in name]
            for each in (False, True)
        )
        assert forward == ["head_0_3"]
        assert len(step) == len(SHARP.heads) == 6
        head = self.convolutions()["head_2_1"]
        assert (head.kind, head.out_voxels) == ("dense", 48)

    @pytest.mark.parametrize("adapter", sharp_networks.ADAPTERS)
    def test_every_kernel_is_counted_once(self, adapter):
        setting = dataclasses.replace(SHARP, adapter=adapter)
        parts = self.convolutions(setting).values()
        variables = sharp_networks.build_ours(setting).variables
        kernels = sum(int(np.prod(v.shape)) for v in variables if len(v.shape) >= 4)
        assert sum(part.num_weights for part in parts) == kernels
        assert [part.name for part in parts if part.reads_batch] == ["stem/conv"]

    def test_rows_of_the_roofline(self):
        measured = {"step": Measurement("ours", (4.0,), 0, 0, {})}
        peaks = {"flops_per_second": 1e9, "bytes_per_second": 1e9}
        rows = roofline.network_rows(SHARP, measured, peaks)
        assert [row["what"] for row in rows] == ["step", "  pointwise", "  dense"]
        assert rows[0]["flops"] == rows[1]["flops"] + rows[2]["flops"]


class TestContendersOfOurs:
    def test_steps_alternate_between_domains(self, monkeypatch):
        seen = []

        def step(trainer, domain, batch):
            seen.append((domain, batch["image"].shape[-1]))
            return 0.25

        monkeypatch.setattr("u2net_tf.training.step.Trainer.step", step)
        task = networks.make_our_steps(TINY, domains=(0, 1))
        assert [task.results(task.run())["loss"] for _ in range(3)] == [0.25] * 3
        assert seen == [(0, 1), (1, 2), (0, 1)]

    @pytest.mark.slow
    def test_forward_uses_the_drawn_batch_and_weights(self):
        task = networks.make_our_forward(SMALL)
        found = task.results(task.run())["logits"]
        network = networks.build_ours(SMALL)
        image, labels = draw_batch(SMALL, 0)
        np.testing.assert_allclose(network(image, domain=0), found, atol=1e-3)
        assert found.shape == (*labels.shape, 2)

    def test_labels_include_all_classes(self):
        image, labels = draw_batch(SMALL, 1)
        assert image.shape == (2, 16, 8, 24, 2)
        assert set(np.unique(labels)) == {0, 1, 2}

    def test_options_reach_the_network(self):
        network = networks.build_ours(SMALL, name="other")
        assert network.name == "other"

    @pytest.mark.slow
    def test_profile_separates_the_forward_pass(self):
        task = profile_step.make_profile(TINY)
        results = task.results(task.run())
        rows = profile_step.rows_of(results["names"], results["seconds"])
        found = {(row["kind"], row["part"]): row["count"] for row in rows}
        # A convolution's gradients are computed after the forward pass.
        assert {part for kind, part in found if kind.startswith("Conv3DBack")} == {
            "rest"
        }
        assert any("Conv3D" in kind for kind, part in found if part == "forward")
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert results["step_seconds"] > 0

    def test_events_that_are_not_operations_are_ignored(self):
        names = ["u2_net_1/stem/x:_MklNativeConv3D", "a:Mul", "b:Mul", "a::B", "c: Mul"]
        rows = profile_step.rows_of(names, [3.0, 2.0, 4.0, 9.0, 9.0])
        keys = ("kind", "part", "count", "seconds")
        assert [tuple(row[key] for key in keys) for row in rows] == [
            ("Mul", "rest", 2, 6.0),
            ("Conv3D", "forward", 1, 3.0),
        ]


@pytest.fixture(scope="module")
def golden():
    folder = pathlib.Path(__file__).parents[1] / "parity" / "golden"
    path = folder / "universal_separable.npz"
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the extra `bench`")


@pytest.mark.slow
class TestAgainstPyTorch:
    def test_state_dict_has_the_names_of_ours(self, torch):
        # `build_torch` loads strictly; this checks the names against ours.
        from u2net_tf.published_weights.variables import published_variables

        network = build_torch(SMALL, "channels_first")
        ours = networks.build_ours(SMALL)
        names = {name for name, _, _ in published_variables(ours)}
        assert names == set(network.state_dict())

    @pytest.mark.parametrize("domain", [0, 1])
    def test_golden_file(self, torch, domain, golden):
        from tools.bench.torch_network import TorchU2Net, segmentation_loss

        config = json.loads(str(golden["config"]))
        network = TorchU2Net(
            config["modalities"],
            config["classes"],
            pools=config["num_pool_per_axis"],
            base_channels=config["base_channels"],
        ).double()
        params = {
            name.removeprefix("param/"): torch.from_numpy(array).double()
            for name, array in golden.items()
            if name.startswith("param/")
        }
        network.load_state_dict(params, strict=True)
        image, labels, logits = (
            golden[f"domain{domain}/{name}"] for name in ("image", "label", "logits")
        )
        found = network(torch.from_numpy(image).double(), domain)
        np.testing.assert_allclose(found.detach(), logits, rtol=0, atol=1e-10)
        loss = segmentation_loss(torch.from_numpy(labels), found)
        expected = sum(golden[f"domain{domain}/{name}"] for name in ("lovasz", "focal"))
        assert loss.item() == pytest.approx(float(expected), abs=1e-10)
        loss.backward()
        for name, parameter in network.named_parameters():
            reference = golden.get(f"domain{domain}/grad/{name}")
            if reference is None:
                assert parameter.grad is None, f"{name} belongs to the other domain"
                continue
            scale = np.abs(reference).max()
            tolerance = 1e-6 * scale if scale > 1e-10 else 1e-10
            np.testing.assert_allclose(
                parameter.grad, reference, rtol=0, atol=tolerance, err_msg=name
            )

    @pytest.mark.parametrize("layout", bench_flags.TORCH_LAYOUTS)
    def test_same_logits(self, torch, layout):
        ours = networks.make_our_forward(SMALL)
        theirs = networks.make_torch_forward(SMALL, layout)
        tasks = (ours, theirs)
        found, expected = (task.results(task.run())["logits"] for task in tasks)
        # float32 through 38 normalizations; exactness is in tests/parity.
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())

    @pytest.mark.parametrize("layout", bench_flags.TORCH_LAYOUTS)
    def test_same_losses_over_steps(self, torch, layout):
        ours = networks.make_our_steps(TINY, domains=(0, 1))
        theirs = networks.make_torch_steps(TINY, layout, domains=(0, 1))
        losses = [ours.run() for _ in range(8)]
        np.testing.assert_allclose(losses, [theirs.run() for _ in range(8)], atol=1e-4)
        # The steps changed the loss by much more than the tolerance.
        assert losses[-2] < losses[0] - 1e-2

    @pytest.mark.parametrize("layout", bench_flags.TORCH_LAYOUTS)
    def test_same_gradient_at_the_first_step(self, torch, layout):
        ours = networks.make_our_steps(TINY)
        theirs = networks.make_torch_steps(TINY, layout)
        found, expected = (task.results(task.run()) for task in (ours, theirs))
        assert found.keys() == expected.keys() == {"loss", "gradient norm"}
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=5e-3), name

    def test_memory_formats_of_layouts(self, torch):
        image = np.zeros((2, 3, 4, 5, 6), np.float32)
        first, last = (to_torch(image, name) for name in bench_flags.TORCH_LAYOUTS)
        assert first.shape == last.shape == (2, 6, 3, 4, 5)
        assert first.is_contiguous()
        assert last.is_contiguous(memory_format=torch.channels_last_3d)
        network = build_torch(SMALL, "channels_last")
        kernel = network.state_dict()["down_samps.0.op1.conv.weight"]
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d)

    def test_windows_of_monai_agree_with_ours(self, torch):
        pytest.importorskip("monai", reason="needs the extra `bench`")
        # Runs in separate processes: that of MONAI must not import TensorFlow.
        report = inference.benchmark(
            TINY, (9, 8, 6), ["channels_last"], runs=1, threads=1
        )
        assert [row["contender"] for row in report.rows] == [
            "ours",
            "MONAI, PyTorch, channels last",
        ]
        assert "differ by at most" in report.notes[0]

    def test_small_depthwise_is_repeated(self, torch):
        assert depthwise.num_repeats((2, 64, 64, 64, 16)) == 1
        assert depthwise.num_repeats((4, 64, 64, 64, 16)) == 1
        assert depthwise.num_repeats((1, 1, 1, 1, 1)) == 32
        shape = (2, 8, 8, 8, 256)
        for task in (
            depthwise.make_ours("ours", shape, False),
            depthwise.make_torch("channels_first", shape, False),
        ):
            assert task.repeats == 32

    def test_depthwise_agrees_at_odd_sizes(self, torch):
        shape = (2, 5, 4, 7, 3)
        for backward in (False, True):
            expected = None
            for task in (
                depthwise.make_ours("ours", shape, backward),
                *(
                    depthwise.make_torch(layout, shape, backward)
                    for layout in bench_flags.TORCH_LAYOUTS
                ),
            ):
                results = task.results(task.run())
                expected = expected or results
                assert results.keys() == expected.keys()
                assert len(results) == (3 if backward else 1)
                for name, array in results.items():
                    np.testing.assert_allclose(array, expected[name], atol=1e-4)
