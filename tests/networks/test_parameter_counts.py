"""Parameter counts of the published code, of the paper, and of built networks."""

import functools
import math

import keras
import pytest

from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    count_stride_1_weights,
    count_trunk,
    network_without_values,
)
from u2net_tf.networks.parameter_table import PAPER_DOMAINS, all_parameters
from u2net_tf.networks.u2net import U2Net

SMALL = {
    "separable": {"pools": (2, 1, 0), "base_channels": 2},
    "series": {"pools": (1, 3, 2), "base_channels": 3},
    "parallel": {"pools": (1, 1, 1), "base_channels": 4},
    "none": {"pools": (0, 2, 3), "base_channels": 2},
}


def size(variables):
    return sum(math.prod(variable.shape) for variable in variables)


@functools.cache
def paper_network(**options):
    """The network of the paper's five domains: Heart, Liver, …, pools 5, 5, 5."""
    return network_without_values((1, 1, 1, 2, 1), (2, 2, 3, 3, 2), **options)


class TestNumbers:
    """Counted in the published code, or from the paper's table 3(a)."""

    def test_universal(self):
        network = paper_network()
        assert count_all(network).total == 6_577_460
        assert count_trunk(network).total == 6_573_200

    def test_universal_as_counted_in_the_paper(self):
        count = count_stride_1_weights(paper_network())
        assert count == Count(shared=1_135_360, per_domain=(121_392,) * 5)
        assert count.total == 1_742_320

    def test_shared(self):
        assert count_trunk(paper_network(adapter="none")).total == 33_148_464

    def test_shared_as_counted_in_the_paper(self):
        network = paper_network(adapter="none", second_up_conv="full")
        assert count_stride_1_weights(network) == Count(30_654_720, (0,) * 5)

    def test_strided_convolutions_that_the_paper_does_not_count(self):
        kernels = [layer.conv.kernel for layer in paper_network().down_samples]
        assert size(kernels) == 4_713_984

    def test_five_independent_models(self):
        independent = all_parameters(PAPER_DOMAINS, adapters=())[0]
        assert independent.name == "5 independent"
        assert independent.count.total == 134_508_692
        assert independent.count.shared == 0


TWO_DOMAINS = (1, 3), (2, 4)
ONE_DOMAIN = (2,), (3,)
QUICK = [
    ("separable", "full", *TWO_DOMAINS),
    ("series", "pointwise", *TWO_DOMAINS),
    ("parallel", "full", *TWO_DOMAINS),
    ("none", "pointwise", *ONE_DOMAIN),
]
EVERY_KIND = [
    (adapter, second_up_conv, *channels)
    for adapter in SMALL
    for second_up_conv in ("full", "pointwise")
    for channels in (TWO_DOMAINS, ONE_DOMAIN)
]
assert set(QUICK) <= set(EVERY_KIND)


@pytest.mark.parametrize(
    ("adapter", "second_up_conv", "modalities", "classes"),
    [
        kind if kind in QUICK else pytest.param(*kind, marks=pytest.mark.slow)
        for kind in EVERY_KIND
    ],
)
def test_agrees_with_a_built_network(adapter, second_up_conv, modalities, classes):
    options = {
        **SMALL[adapter],
        "adapter": adapter,
        "second_up_conv": second_up_conv,
    }
    network = U2Net(modalities, classes, **options)
    network.build()
    count = count_all(network_without_values(modalities, classes, **options))
    assert count.total == network.count_params()
    assert count.shared == size(network.shared_variables)
    assert count.per_domain == tuple(
        size(network.domain_variables(domain)) for domain in range(len(classes))
    )
    outside = (network.stem, *network.deep_supervision, network.head)
    trunk = network.count_params() - sum(layer.count_params() for layer in outside)
    assert count_trunk(network).total == trunk
    assert count_trunk(network).shared == count.shared


@pytest.mark.parametrize(
    ("adapter", "shared", "own"),
    [
        # One pooling step: two blocks of two units, 4 → 4 and 8 → 8, then three units
        # 8 → 4 (twice) and 4 → 4.
        ("none", 27 * (2 * 16 + 2 * 64 + 2 * 32 + 16), 0),
        ("separable", 2 * 16 + 2 * 64 + 2 * 32 + 16, 27 * (2 * 4 + 2 * 8 + 2 * 8 + 4)),
        ("series", 27 * (2 * 16 + 2 * 64 + 2 * 32 + 16), 2 * 16 + 2 * 64 + 3 * 16),
        (
            "parallel",
            27 * (2 * 16 + 2 * 64 + 2 * 32 + 16),
            2 * 16 + 2 * 64 + 2 * 32 + 16,
        ),
    ],
)
def test_stride_1_weights_by_hand(adapter, shared, own):
    network = network_without_values(
        (1, 2),
        (2, 3),
        pools=(1, 0, 1),
        base_channels=4,
        adapter=adapter,
        second_up_conv="full",
    )
    assert count_stride_1_weights(network) == Count(shared, (own, own))


def test_a_network_without_values_leaves_nothing_behind():
    network = network_without_values((1,), (2,), pools=(1, 1, 1), base_channels=2)
    # Here Keras would initialize all variables that it has recorded as uninitialized.
    with keras.StatelessScope():
        pass
    assert network.variables
    assert all(variable._value is None for variable in network.variables)
