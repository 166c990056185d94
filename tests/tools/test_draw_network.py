"""The drawing shows the network that the code builds."""

import numpy as np
import pytest
from matplotlib import colors, image
from matplotlib.figure import Figure

from tools import draw_network, draw_unet_sharp, draw_units
from tools.network_parts import OWN_CONV, OWN_NORM, SHARED_CONV, parts_of
from u2net_tf.errors import InputError
from u2net_tf.networks.conv_units import UNITS, ParallelUnit, SeriesUnit
from u2net_tf.networks.parameter_counts import network_without_values

MODULE = "tools.draw_network"
DEFAULTS = {
    "adapter": "separable",
    "base_channels": 16,
    "pools": (5, 5, 5),
    "second_up_conv": None,
}


def drawn(**settings):
    """Returns the axes with the drawing of a network."""
    axis = Figure().subplots()
    network = network_without_values((1,), (2,), **{**DEFAULTS, **settings})
    draw_network.NetworkDrawing(axis, network).draw()
    return axis


def drawn_sharp(**settings):
    """Returns the axes with the drawing of a UNet#."""
    axis = Figure().subplots()
    network = network_without_values(
        (1,), (2,), architecture="unet_sharp", base_channels=16, **settings
    )
    draw_unet_sharp.SharpDrawing(axis, network).draw()
    return axis


def texts(axis):
    return [text.get_text() for text in axis.texts if text.get_text()]


def count_bars(axis, colour):
    faces = [colors.to_hex(bar.get_facecolor()) for bar in axis.patches]
    return faces.count(colour)


@pytest.mark.parametrize(("depth", "pools"), [(2, (1, 3, 1)), (None, (5, 5, 5))])
def test_pools_above_the_depth(run_command, tmp_path, depth, pools):
    flags = {} if depth is None else {"depth": depth}
    flags |= {"pools": ",".join(map(str, pools)), "output": tmp_path / "x.png"}
    done = run_command(MODULE, status=1, architecture="unet_sharp", **flags)
    assert done.stderr.startswith(
        f"error: --pools: expected at most {depth or 4} along each axis, since --depth "
    )


def test_picture_has_every_colour(tmp_path):
    path = tmp_path / "network.png"
    draw_network.draw_network(path, **DEFAULTS)
    picture = image.imread(path)[..., :3]
    for colour in (OWN_CONV, OWN_NORM, SHARED_CONV):
        near = np.abs(picture - colors.to_rgb(colour)).max(axis=-1) < 0.02
        assert near.sum() > 1000


def test_levels_have_the_channels_and_sizes_of_the_network():
    labels = texts(drawn())
    for channels in (16, 32, 64, 128, 256):
        assert labels.count(str(channels)) == 2, "encoder and decoder"
    assert labels.count("512") == 1
    assert "size 1/2" in labels
    assert "1/32" in labels
    other = texts(drawn(pools=(2, 3, 0), base_channels=5))
    assert [other.count(str(channels)) for channels in (5, 10, 20, 40, 80)] == [
        2, 2, 2, 1, 0,
    ]  # fmt: skip
    assert {"size 1/2 × 1/2 × 1", "1/4 × 1/4 × 1", "1/4 × 1/8 × 1"} <= set(other)


@pytest.mark.parametrize(
    ("adapter", "own", "shared"),
    [("none", 0, 1), ("separable", 1, 1), ("series", 1, 1), ("parallel", 1, 1)],
)
def test_bars_match_the_convolutions_of_the_network(adapter, own, shared):
    axis = drawn(adapter=adapter, pools=(3, 3, 3))
    # Four encoder blocks of two units and three decoder blocks of three units. Stem,
    # head and two deep supervision layers are domain-specific; three strided
    # convolutions are shared.
    assert count_bars(axis, OWN_CONV) == 17 * own + 4
    assert count_bars(axis, SHARED_CONV) == 17 * shared + 3


def test_second_up_conv_is_drawn():
    pointwise = drawn(pools=(3, 3, 3), second_up_conv="pointwise")
    assert count_bars(pointwise, OWN_CONV) == 14 + 4


def test_deep_supervision_is_drawn_if_present():
    assert "deep supervision" in texts(drawn(pools=(2, 2, 2)))
    assert texts(drawn()).count("+") == 2
    assert texts(drawn(pools=(2, 2, 2))).count("+") == 1
    assert not {"deep supervision", "+"} & set(texts(drawn(pools=(1, 1, 1))))


class TestUNetSharp:
    @pytest.mark.parametrize("depth", [1, 3])
    def test_nodes_and_heads_match_the_network(self, depth):
        axis = drawn_sharp(depth=depth)
        labels = texts(axis)
        names = [text for text in labels if text.startswith("$X")]
        expected = [
            f"$X^{{{level},{column}}}$"
            for level in range(depth + 1)
            for column in range(depth + 1 - level)
        ]
        assert sorted(names) == expected
        # X^{0,0} has one unit in addition to the stem, every other node has two.
        units = 2 * len(names) - 1
        assert count_bars(axis, SHARED_CONV) == units
        assert count_bars(axis, OWN_CONV) == units + 1 + 2 * depth
        assert labels.count("head") == 2 * depth - 1
        assert labels.count("head → logits") == 1
        assert [text for text in labels if text.startswith("L = ")] == [
            f"L = {pruned}" for pruned in range(1, depth + 1)
        ]

    def test_levels_have_the_channels_and_sizes_of_the_network(self):
        labels = texts(drawn_sharp(depth=2, pools=(0, 2, 1)))
        assert {"16 channels", "32", "64", "1 × 1/4 × 1/2"} <= set(labels)

    def test_every_node_reads_from_its_left_and_from_below(self):
        """An arrow of each colour ends at each node outside the first column."""
        axis = drawn_sharp(depth=3, adapter="none")
        arrows = [
            text.arrow_patch for text in axis.texts if hasattr(text, "arrowprops")
        ]
        colour = draw_unet_sharp.UP_SAMPLED
        below = [a for a in arrows if colors.to_hex(a.get_edgecolor()) == colour]
        assert len(below) == 3 + 2 + 1
        # As many from the left, three poolings, two before X^{0,0}, and one per head.
        assert len(arrows) - len(below) == 6 + 3 + 2 + 6

    def test_shades_match_pruned_networks(self):
        axis = drawn_sharp(depth=2)
        for depth, levels in ((1, 2), (2, 3)):
            assert count_bars(axis, draw_unet_sharp.SHADES[depth - 1]) == levels

    @pytest.mark.parametrize(
        ("gates", "top", "deep"),
        [("none", 0, 0), ("top", 2, 0), ("deep", 0, 2), ("both", 2, 2)],
    )
    def test_gates_match_the_network(self, gates, top, deep):
        axis = drawn_sharp(depth=2, adapter="none", gates=gates)
        labels = texts(axis)
        assert sum(text.startswith("head, gate") for text in labels) == top
        assert labels.count("gate") == deep
        # In addition to the stem and four heads.
        assert count_bars(axis, OWN_CONV) == 1 + 4 + top + deep

    def test_legend_mentions_aligned_corners(self):
        for align_corners in (False, True):
            axis = drawn_sharp(depth=1, align_corners=align_corners)
            labels = [text.get_text() for text in axis.get_legend().get_texts()]
            assert any("corners aligned" in text for text in labels) == align_corners


def test_units_have_their_parts_in_order():
    labels = {
        name: [
            part.label.replace("\n", " ")
            for (unit,) in [parts_of(unit_class(1, 2, 1))]
            for part in unit
        ]
        for name, unit_class in UNITS.items()
    }
    assert labels["none"] == ["conv 3×3×3", "norm, LeakyReLU"]
    assert labels["separable"] == [
        "depthwise 3×3×3",
        "norm, LeakyReLU",
        "conv 1×1×1",
        "norm, LeakyReLU",
    ]
    assert labels["series"] == ["conv 3×3×3", "norm", "conv 1×1×1", "norm, LeakyReLU"]
    assert labels["parallel"] == ["conv 3×3×3", "conv 1×1×1", "norm, LeakyReLU"]


@pytest.mark.parametrize(
    ("unit_class", "after_the_convolution"), [(SeriesUnit, True), (ParallelUnit, False)]
)
def test_adapters_are_drawn_above_the_layers_they_run_parallel_to(
    unit_class, after_the_convolution
):
    axis = Figure().subplots()
    draw_units.draw_unit(axis, unit_class(1, 2, 1), 0.0, 0.0)
    low = [box for box in axis.patches if box.get_y() < 0]
    high = [box for box in axis.patches if box.get_y() > 0]
    assert (high[0].get_x() > low[0].get_x()) == after_the_convolution
    assert {colors.to_hex(box.get_facecolor()) for box in low} == {
        SHARED_CONV,
        OWN_NORM,
    }


def test_output_must_be_a_png(tmp_path):
    with pytest.raises(InputError, match="`output`: expected FILE.png. Received: "):
        draw_network.draw_network(tmp_path / "network.pdf", **DEFAULTS)


class TestCommand:
    def test_writes_the_picture_that_the_flags_describe(self, run_warm, tmp_path):
        path = tmp_path / "network.png"
        flags = {
            "adapter": "series",
            "pools": "1,2,0",
            "base_channels": 3,
            "last_decoder_kernel": 3,
        }
        done = run_warm(MODULE, output=path, **flags)
        assert done.stdout == f"{path}: drew the network with --adapter=series\n"
        other = tmp_path / "other.png"
        settings = {
            "adapter": "series",
            "pools": (1, 2, 0),
            "base_channels": 3,
            "second_up_conv": "full",
        }
        draw_network.draw_network(other, **settings)
        assert path.read_bytes() == other.read_bytes()

    @pytest.mark.parametrize("pools", [None, "1,2,0"])
    def test_another_architecture(self, run_warm, tmp_path, pools):
        path, other = tmp_path / "network.png", tmp_path / "other.png"
        flags = {"architecture": "unet_sharp", "depth": 2, "align_corners": True}
        given = {} if pools is None else {"pools": pools}
        run_warm(MODULE, output=path, **flags, **given)
        settings = {"pools": (2, 2, 2) if pools is None else (1, 2, 0)}
        draw_network.draw_network(other, adapter="separable", **flags, **settings)
        assert path.read_bytes() == other.read_bytes()

    def test_pools_that_halve_no_axis(self, run_command, tmp_path):
        done = run_command(
            MODULE, status=1, output=tmp_path / "network.png", pools="0,0,0"
        )
        assert "--pools: expected at least one axis to be halved" in done.stderr
