"""Every layer has a row, is built completely, and is restored from its config."""

import importlib
import inspect
import json
import pkgutil

import keras
import numpy as np
import pytest
import table
from table import TABLE

from u2net_tf import networks
from u2net_tf.networks.architectures import ARCHITECTURES
from u2net_tf.networks.conv_units import ConvUnit
from u2net_tf.networks.layers import DomainLayer

pytestmark = pytest.mark.usefixtures("plain_implementation")


def public_layers():
    """The layers and networks that the modules of `u2net_tf.networks` define."""
    for found in pkgutil.walk_packages(networks.__path__, f"{networks.__name__}."):
        module = importlib.import_module(found.name)
        for name, member in vars(module).items():
            if (
                inspect.isclass(member)
                and issubclass(member, keras.layers.Layer)
                and member.__module__ == module.__name__
                and not name.startswith("_")
            ):
                yield member


def is_abstract(cls):
    """Whether a class has no `call`, and only serves as a base class."""
    return cls.call is keras.layers.Layer.call


def test_every_layer_has_a_row():
    found = set(public_layers())
    assert {cls for cls in found if is_abstract(cls)} == {DomainLayer, ConvUnit}
    rows = {row.make.func for row in TABLE.values()}
    assert {cls for cls in found if not is_abstract(cls)} == rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_mode_has_a_row(architecture):
    specs = [row.spec for row in TABLE.values() if row.spec]
    specs = [spec for spec in specs if spec.architecture == architecture]
    modes = {(spec.adapter, len(spec.plan.domains) > 1) for spec in specs}
    assert modes == {
        ("separable", True),
        ("series", True),
        ("parallel", True),
        ("none", True),
        ("none", False),
    }
    if architecture == "u2net":
        assert {spec.second_up_conv for spec in specs} == {None, "full", "pointwise"}
    else:
        assert {spec.align_corners for spec in specs} == {False, True}
        assert {spec.deep_supervision for spec in specs} == {False, True}


@pytest.mark.parametrize("name", table.rows())
class TestBuild:
    def test_makes_all_variables_once(self, name):
        row = TABLE[name]
        layer, called = row.make(name="mine"), row.make(name="mine")
        assert not layer.built
        layer.build()
        made = [(variable.path, variable.shape) for variable in layer.variables]
        assert len({path for path, _ in made}) == len(made)
        assert made[0][0].startswith("mine/")
        for domain in reversed(range(row.num_domains)):
            # The first call builds it, with any domain.
            called(*table.draw_inputs(row, domain, "float32"), domain=domain)
            assert [(v.path, v.shape) for v in called.variables] == made

    def test_rejects_an_unknown_domain(self, name):
        row = TABLE[name]
        layer = table.build(row)
        for domain in (-1, row.num_domains, "heart"):
            with pytest.raises(ValueError, match=r"Received: domain="):
                layer(*table.draw_inputs(row, 0), domain=domain)
            with pytest.raises(ValueError, match=r"Received: domain="):
                layer.domain_variables(domain)


@pytest.mark.parametrize("name", table.rows())
class TestConfig:
    def arguments(self, cls):
        """Names of the arguments of our constructors, without those of Keras."""
        ours = [c for c in cls.__mro__ if c.__module__.startswith("u2net_tf.")]
        names = {n for c in ours for n in inspect.signature(c.__init__).parameters}
        # A base class may take the number of domains that its subclass lists.
        names -= {"self", "args", "kwargs", "num_domains"}
        return names | {*inspect.signature(cls.__init__).parameters} - {
            "self",
            "kwargs",
        }

    def round_trip(self, layer):
        text = json.dumps(keras.saving.serialize_keras_object(layer))
        twin = keras.saving.deserialize_keras_object(json.loads(text))
        assert type(twin) is type(layer)
        assert twin.get_config() == layer.get_config()
        # The name in files, which must not clash with other packages.
        name = f"u2net_tf>{type(layer).__name__}"
        assert keras.saving.get_registered_name(type(layer)) == name
        assert twin.dtype_policy.name == layer.dtype_policy.name
        return twin

    def test_before_building(self, name):
        layer = TABLE[name].make(dtype="mixed_bfloat16", name="mine")
        assert self.arguments(type(layer)) <= set(layer.get_config())
        assert not self.round_trip(layer).built

    def test_after_building(self, name):
        row = TABLE[name]
        layer = table.build(row, name="mine")
        twin = self.round_trip(layer)
        assert [v.path for v in twin.variables] == [v.path for v in layer.variables]
        # If the config omits an argument, the twin has its default and differs.
        twin.set_weights(layer.get_weights())
        for domain in range(row.num_domains):
            inputs = table.draw_inputs(row, domain)
            np.testing.assert_array_equal(
                twin(*inputs, domain=domain), layer(*inputs, domain=domain)
            )
