"""The cases that the weights of a model were trained on."""

import dataclasses

import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.seen_cases import seen_cases, seen_domains
from u2net_tf.models.spec import ModelSpec

ONE, TWO = toy.ONE.name, toy.TWO.name
SPEC = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))


def test_of_random_weights():
    assert seen_cases(SPEC, RunState()) == {
        ONE: SeenCases(ONE, toy.ONE.train, True),
        TWO: SeenCases(TWO, toy.TWO.train, True),
    }


def test_of_initial_weights():
    before = (
        SeenCases(ONE, (toy.ONE.train[1], "other"), False),
        SeenCases("Task93_Three", ("x",), True),
    )
    found = seen_cases(SPEC, RunState(initial_cases=before))
    names = (toy.ONE.train[1], "other", toy.ONE.train[0], toy.ONE.train[2])
    assert found == {
        ONE: SeenCases(ONE, names, False),
        TWO: SeenCases(TWO, toy.TWO.train, True),
        "Task93_Three": before[1],
    }


def test_without_case_names():
    before = (SeenCases(ONE, ("other",), True),)
    spec = without_case_names(SPEC, [ONE])
    found = seen_cases(spec, RunState(initial_cases=before))
    assert found[ONE] == SeenCases(ONE, ("other",), False)
    assert found[TWO].complete


def test_domains_that_a_new_model_lacks():
    """Their cases are not named, even if those of one source are."""
    before = (SeenCases("Task93_Three", ("x",), True),)
    sources = [
        (SPEC, RunState(initial_cases=before)),
        (without_case_names(SPEC), RunState()),
    ]
    only_one = dataclasses.replace(SPEC, plan=toy.PLAN.select([ONE]))
    assert seen_domains(sources, only_one) == (
        SeenCases("Task93_Three", (), False),
        SeenCases(TWO, (), False),
    )
    assert seen_domains(sources[1:], SPEC) == ()


def test_a_domain_twice():
    seen = SeenCases(ONE, (), True)
    words = f"initial_cases: expected each domain once. Received: .*{ONE}"
    with pytest.raises(InputError, match=words):
        RunState(initial_cases=(seen, seen))
