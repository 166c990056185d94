"""The protocol lists what other packages use of a network; `U2Net` implements it."""

import ast
import inspect
import pathlib

import pytest

from u2net_tf import networks
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.networks.u2net import U2Net

USERS = ("models", "training", "inference")
PACKAGE = pathlib.Path(networks.__file__).parents[1]
PROPERTIES, METHODS = (
    [
        name
        for name, member in vars(DomainModel).items()
        if is_kind(member) and (not name.startswith("_") or name == "__call__")
    ]
    for is_kind in (lambda member: isinstance(member, property), inspect.isfunction)
)


@pytest.fixture(scope="module")
def network():
    network = U2Net((1, 2), (2, 3), pools=(1, 0, 1), base_channels=2)
    network.build()
    return network


def test_the_protocol_is_not_empty():
    assert {"num_domains", "shared_variables"} <= set(PROPERTIES)
    assert {"__call__", "build", "variables_by_path"} <= set(METHODS)


@pytest.mark.parametrize("name", PROPERTIES)
def test_u2net_has_every_property(network, name):
    assert not inspect.isroutine(getattr(network, name))


@pytest.mark.parametrize("name", METHODS)
def test_u2net_has_every_method(name):
    # Keras passes the arguments of `__call__` to `call`.
    found = getattr(U2Net, "call" if name == "__call__" else name)
    expected = inspect.signature(getattr(DomainModel, name)).parameters
    taken = inspect.signature(found).parameters
    assert [(p.name, p.kind, p.default) for p in expected.values()] == [
        (p.name, p.kind, p.default) for p in taken.values()
    ]


@pytest.mark.parametrize("name", [*PROPERTIES, *METHODS])
def test_every_member_is_used(name):
    """Only the name is searched for: `num_classes` may also be that of a domain."""
    used = set()
    for package in USERS:
        for path in (PACKAGE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):
                    used.add(node.attr)
                elif isinstance(node, ast.Call):
                    keywords = {keyword.arg for keyword in node.keywords}
                    if {"domain", "training"} <= keywords:
                        used.add("__call__")
    assert name in used
