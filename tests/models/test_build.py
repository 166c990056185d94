import dataclasses
import itertools

import pytest
import tensorflow as tf
import toy

from u2net_tf.errors import StoppedError
from u2net_tf.models import build
from u2net_tf.models.build import build_network, min_parameters
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.parameter_counts import count_all, network_without_values
from u2net_tf.plan.domains import Plan


def test_every_setting_reaches_the_network():
    spec = ModelSpec(
        plan=toy.PLAN,
        pools=(1, 2, 1),
        base_channels=3,
        adapter="series",
        second_up_conv="full",
    )
    network = build_network(spec, name="mine", dtype="float64")
    assert network.num_modalities == (1, 2)
    assert network.num_classes == (2, 3)
    assert network.pools == (1, 2, 1)
    assert network.base_channels == 3
    assert network.adapter == "series"
    assert network.second_up_conv == "full"
    assert network.name == "mine"
    assert {variable.dtype for variable in network.variables} == {"float64"}


def test_too_little_memory_for_the_variables(monkeypatch):
    class TooLarge:
        def __init__(self, *arguments, **options):
            pass

        def build(self):
            # More bytes than the addresses of any machine.
            tf.random.stateless_normal([1 << 60], seed=(1, 2))

    monkeypatch.setitem(build.ARCHITECTURES, "u2net", TooLarge)
    words = "expected enough memory for the variables .* Received: OOM .* Close other"
    with pytest.raises(StoppedError, match=words):
        build_network(ModelSpec(plan=toy.PLAN, pools=(1, 1, 1)))


@pytest.mark.parametrize("adapter", ["separable", "none", "series", "parallel"])
def test_lower_bound_of_the_parameters(adapter):
    shapes = itertools.product(
        [((1, 0, 1), 300), ((0, 1, 0), 40), ((3, 3, 3), 8)],
        ["full", "pointwise"],
        (1, 2),
    )
    for (pools, base_channels), second_up_conv, num_domains in shapes:
        spec = ModelSpec(
            plan=Plan(
                tuple(dataclasses.replace(toy.ONE, name=n) for n in "ab"[:num_domains])
            ),
            pools=pools,
            base_channels=base_channels,
            adapter=adapter,
            second_up_conv=second_up_conv,
        )
        found = count_all(
            network_without_values(
                [1] * num_domains,
                [2] * num_domains,
                pools=pools,
                base_channels=base_channels,
                adapter=adapter,
                second_up_conv=second_up_conv,
            )
        ).total
        assert min_parameters(spec) < found < 2 * min_parameters(spec), spec.pools
