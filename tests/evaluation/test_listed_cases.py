import dataclasses
import pathlib

import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.evaluation.listed_cases import (
    domains_of_model,
    list_cases,
    list_incomplete,
    list_training_cases,
)
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Label, Region
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing

SPEC = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))
WITHOUT_NAMES = without_case_names(SPEC)
MODEL = pathlib.Path("model")
RANDOM_WEIGHTS = RunState()


def serve(spec, *names, state=RANDOM_WEIGHTS):
    found = domains_of_model(MODEL, spec, state)
    return [found[name] for name in names or spec.plan.names]


@pytest.fixture
def write_plan(tmp_path):
    def write(*domains):
        path = tmp_path / "plan.json"
        path.write_text(plan_to_json(Plan(domains)), encoding="utf-8")
        return str(path)

    return write


def message(served, plan=None, fold=None):
    with pytest.raises(InputError) as caught:
        list_cases(served, plan, fold)
    return str(caught.value)


def test_a_model_lists_its_own_cases():
    assert list_cases(serve(SPEC), None, None) == list(toy.PLAN.domains)


def test_a_plan_lists_the_cases_for_a_model_without_them(write_plan):
    moved = dataclasses.replace(toy.TWO, raw_dir="elsewhere", test=("x", "y"))
    one, two = list_cases(serve(WITHOUT_NAMES), write_plan(moved, toy.ONE), None)
    assert one == toy.ONE
    assert two == moved


def test_a_plan_overrides_the_regions_of_the_model(write_plan):
    other = dataclasses.replace(toy.TWO, regions=(Region("all", ("rim", "core")),))
    assert list_cases(serve(SPEC), write_plan(toy.ONE, other), None) == [toy.ONE, other]


def test_a_plan_has_the_ignore_label_of_the_model(write_plan):
    other = dataclasses.replace(toy.ONE, ignore_label=9)
    text = message(serve(SPEC), write_plan(other, toy.TWO))
    assert "Task91_One: ignore_label: expected None, as in model. Received: 9" in text


def test_a_plan_overrides_the_cases_of_the_model(write_plan):
    other = dataclasses.replace(toy.ONE, test=("x",))
    assert list_cases(serve(SPEC), write_plan(other), None) == [other, toy.TWO]


def test_training_cases_in_another_split_are_listed():
    spec = ModelSpec(plan=Plan((toy.ONE,)), pools=(1, 1, 1))
    listed = dataclasses.replace(
        toy.ONE, train=(), validation=("one_2", "new"), test=("one_0", "one_3")
    )
    for split, expected in (
        ("validation", ("Task91_One/one_2",)),
        ("test", ("Task91_One/one_0",)),
        ("train", ()),
    ):
        assert list_training_cases(serve(spec), [listed], split) == expected
        assert list_training_cases(serve(spec), [toy.ONE], split) == ()
        # A model without names cannot tell.
        without = without_case_names(spec)
        assert list_training_cases(serve(without), [listed], split) == ()


def test_cases_of_initial_weights_are_training_cases():
    spec = ModelSpec(plan=Plan((toy.ONE, toy.TWO)), pools=(1, 1, 1))
    seen = (
        SeenCases(toy.ONE.name, (*toy.ONE.test, "other"), True),
        SeenCases("Task93_Three", toy.TWO.test, False),
    )
    served = serve(spec, state=RunState(initial_cases=seen))
    domains = [toy.ONE, toy.TWO]
    expected = tuple(f"{toy.ONE.name}/{case}" for case in toy.ONE.test)
    assert list_training_cases(served, domains, "test") == expected
    assert list_training_cases(served, domains, "train") == ()
    assert list_incomplete(served) == ()


def test_models_without_all_case_names_are_listed():
    spec = without_case_names(SPEC, [toy.TWO.name])
    assert list_incomplete(serve(spec)) == (toy.TWO.name,)
    state = RunState(initial_cases=(SeenCases(toy.ONE.name, ("one_0",), False),))
    served = serve(SPEC, state=state)
    assert list_incomplete(served) == (toy.ONE.name,)


def test_other_settings_are_those_of_the_model(write_plan):
    """Changed settings in a plan are not those that the model was trained with."""
    statistics = IntensityStatistics(low=0, high=9, mean=5, std=2)
    other = dataclasses.replace(
        toy.ONE,
        patch_size=(4, 4, 4),
        batch_size=7,
        preprocessing=Preprocessing(intensity_statistics=(statistics,)),
    )
    found = list_cases(serve(WITHOUT_NAMES, toy.ONE.name), write_plan(other), None)
    assert found == [toy.ONE]


def test_without_a_plan_it_is_an_error(write_plan):
    assert message(serve(WITHOUT_NAMES)) == (
        "`plan`: expected the plan that lists the cases of Task91_One, Task92_Two, "
        "which the model does not list. Received: none"
    )
    mixed = without_case_names(SPEC, [toy.ONE.name])
    assert message(serve(mixed)).endswith("none. Or choose Task92_Two with `domains`")
    path = write_plan(toy.TWO)
    assert f"Received: {path}. Or choose" in message(serve(mixed), path)


def test_a_plan_without_any_of_the_domains(write_plan):
    path = write_plan(toy.TWO)
    assert message(serve(WITHOUT_NAMES, toy.ONE.name), path) == (
        f"{path}: domains: expected some of Task91_One. Received: Task92_Two"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing_mm": (1.0, 1.0, 1.5)},
        {"modalities": ("MR",)},
        {"preprocessing": Preprocessing(margin_voxels=7)},
        {"labels": (Label("background", (0,)), Label("liver", (1,)))},
        {"labels": (Label("background", (0,)), Label("organ", (2,)))},
    ],
)
def test_a_plan_that_contradicts_the_model_is_an_error(write_plan, changes):
    path = write_plan(dataclasses.replace(toy.ONE, **changes))
    ((field, _),) = changes.items()
    text = message(serve(WITHOUT_NAMES, toy.ONE.name), path)
    assert text.startswith(f"{path}: Task91_One: {field}: expected ")
    assert ", as in model. Received: " in text


def test_folds(write_plan):
    folds = (("a", "b"), ("c",))
    path = write_plan(
        dataclasses.replace(toy.ONE, train=(), validation=(), folds=folds)
    )
    served = serve(WITHOUT_NAMES, toy.ONE.name)
    (every_fold,) = list_cases(served, path, None)
    assert (every_fold.train, every_fold.validation) == (("a", "b", "c"), ())
    (second,) = list_cases(served, path, 1)
    assert (second.train, second.validation) == (("a", "b"), ("c",))
    assert "`fold`: expected a fold of Task91_One" in message(served, path, 2)
    assert message(serve(SPEC), None, 1) == (
        "`fold`: expected no value without a `plan`. Received: 1"
    )
