"""`summary()` of the networks, with shapes."""

import numpy as np
import pytest

from u2net_tf.networks.u2net import U2Net
from u2net_tf.networks.unet_sharp import UNetSharp


def summarize(network, **options):
    lines = []
    network.summary(print_fn=lines.append, **options)
    (text,) = lines
    header, rule, *rows, second_rule, total = text.splitlines()
    assert rule == second_rule
    assert header.split() == [
        *("layer", "output", "shape", "parameters", "of", "domain"),
        str(options.get("domain", 0)),
        "only",
    ]
    return rows, total


@pytest.fixture(scope="module")
def network():
    return U2Net([1, 2], [2, 3], pools=(1, 2, 2), base_channels=4)


def test_shapes_are_those_of_the_layers(network):
    rows, _ = summarize(network, patch_size=(4, 8, 16), domain=1)
    shapes = {
        row.split()[0]: row[row.index("(None") : row.rindex(")") + 1] for row in rows
    }
    assert list(shapes) == [
        *("stem", "encoder_0", "down_sample_0", "encoder_1", "down_sample_1"),
        *("encoder_2", "decoder_1", "deep_supervision_0", "decoder_0", "head"),
    ]
    assert shapes["encoder_1"] == "(None, 2, 4, 8, 8)"
    # The first axis is halved only once.
    assert shapes["encoder_2"] == "(None, 2, 2, 4, 16)"
    assert shapes["deep_supervision_0"] == "(None, 2, 4, 8, 3)"
    assert shapes["head"] == "(None, 4, 8, 16, 3)"


def test_parameters_add_up(network):
    counts = {}
    for domain in (0, 1):
        rows, total = summarize(network, domain=domain)
        numbers = [
            [int(word.replace(",", "")) for word in row.split()[-2:]] for row in rows
        ]
        *_, all_parameters, own = (word.replace(",", "") for word in total.split())
        counts[domain] = int(own)
        np.testing.assert_array_equal(
            np.sum(numbers, axis=0), [int(all_parameters), int(own)]
        )
        assert int(all_parameters) == network.count_params()
    assert counts[0] < counts[1]
    shared = sum(int(np.prod(v.shape)) for v in network.shared_variables)
    assert sum(counts.values()) + shared == network.count_params()


def test_the_smallest_patch_is_the_default(network):
    rows, _ = summarize(network)
    assert "(None, 2, 4, 4, 4)" in rows[0]


def test_layers_that_a_prediction_does_not_need_are_last():
    network = UNetSharp([1], [2], pools=(1, 1, 1), depth=1, base_channels=2)
    rows, _ = summarize(network)
    assert rows[-1].startswith("head_1_0")
    assert "not computed" in rows[-1]
    assert "not computed" not in "".join(rows[:-1])


@pytest.mark.slow
def test_the_network_computes_as_before(network):
    inputs = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 1)).astype(np.float32)
    before = network(inputs, domain=0)
    summarize(network)
    assert "call" not in vars(network.head)
    np.testing.assert_array_equal(network(inputs, domain=0), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": (2, 4, 5)}, "Axis W is halved 2 times"),
        ({"patch_size": (2, 4)}, "must have the axes"),
        ({"patch_size": (0, 4, 4)}, "`patch_size` must be integers of at least 1"),
        ({"domain": 2}, "`domain` must be an integer from 0 to 1"),
    ],
)
def test_bad_arguments(network, options, message):
    with pytest.raises(ValueError, match=message):
        network.summary(**options)
    assert "call" not in vars(network.head)
