"""What the workers of a run must have in common; here, nothing is exchanged."""

import dataclasses
import types

import keras
import pytest
import toy

from u2net_tf.config.training import AdaptConfig, TrainConfig
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.training.cluster import Cluster
from u2net_tf.training.worker_agreement import require_same_run
from u2net_tf.training.workers import Workers

FOLDERS = {"data_dir": "data", "model_dir": "model"}


def facts_of(config, *, network=1.0, optimizer=0.0, domain=toy.TWO, **facts):
    """Returns the facts that a worker would compare."""
    found = {}
    workers = Workers(Cluster(("one:1", "two:1")))
    workers.require_same = lambda facts, hints: found.update(facts)
    trainer = types.SimpleNamespace(
        network=types.SimpleNamespace(
            variables_by_path=lambda: {"kernel": keras.Variable(network)}
        ),
        variables_by_path=lambda: {"optimizer/kernel": keras.Variable(optimizer)},
    )
    facts = {"step": 3, "records": "a", "plan": Plan((domain,))} | facts
    require_same_run(workers, trainer, config, **facts)
    return found


def train_config(**settings):
    return TrainConfig.from_flat(FOLDERS | settings)


def test_equal():
    assert facts_of(train_config()) == facts_of(train_config())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_dir", "other"),
        ("model_dir", "other"),
        ("init_from", "other"),
        ("log_every_seconds", 5.0),
        ("num_parallel_calls", 3),
    ],
)
def test_settings_that_may_differ(name, value):
    assert facts_of(train_config(**{name: value})) == facts_of(train_config())


def test_parents_may_be_in_different_folders():
    one, other = (
        facts_of(AdaptConfig.from_flat(FOLDERS | {"from_": parent, "domain": "liver"}))
        for parent in ("parent", "other")
    )
    assert one == other


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 1), ("domains", ("liver",)), ("fold", 2)]
)
def test_settings_that_must_be_the_same(name, value):
    changed, facts = facts_of(train_config(**{name: value})), facts_of(train_config())
    assert [each for each in changed if changed[each] != facts.get(each)] == [
        f"`{name}`"
    ]


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("step", 4, "step"),
        ("records", "b", "records"),
        ("network", 2.0, "variables"),
        ("optimizer", 2.0, "variables"),
    ],
)
def test_state_that_must_be_the_same(name, value, fact):
    changed, facts = facts_of(train_config(), **{name: value}), facts_of(train_config())
    assert [each for each in facts if changed[each] != facts[each]] == [fact]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 8),
        ("mirror_axes", ("x",)),
        ("regions", (Region("all", ("rim", "core")),)),
    ],
)
def test_plans_that_must_be_the_same(field, value):
    domain = dataclasses.replace(toy.TWO, **{field: value})
    changed, facts = (facts_of(train_config(), domain=d) for d in (domain, toy.TWO))
    assert [each for each in facts if changed[each] != facts[each]] == [
        f"{toy.TWO.name}: {field}"
    ]
