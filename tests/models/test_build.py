import toy

from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec


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
