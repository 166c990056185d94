import copy
import dataclasses
import json

import pytest

from u2net_tf.command import InputError
from u2net_tf.domains import (
    Domain,
    Label,
    Plan,
    Preprocessing,
    load_plan,
    plan_from_json,
    plan_to_json,
)

KNEE = Domain(
    name="Knee",
    raw_dir="/raw/Knee",
    modalities=("T1", "T2"),
    labels=(
        Label("background", (0,)),
        Label("bone", (3, 1), keep_components=2),
    ),
    spacing_mm=(3.6, 0.625, 0.7),
    median_shape=(20, 320, 319),
    patch_size=(20, 192, 96),
    pools=(2, 5, 4),
    batch_size=4,
    mirror_axes=("x", "z"),
    preprocessing=Preprocessing(
        margin_voxels=3,
        clip_percentiles=(0.5, 99.5),
        spacing_source="affine",
        unknown_labels="background",
    ),
    train=("a", "b"),
    validation=("c",),
    test=("d",),
)
HIP = dataclasses.replace(KNEE, name="Hüfte", validation=(), mirror_axes=())
PLAN = Plan(domains=(KNEE, HIP), seed=7)


def test_round_trip():
    assert plan_from_json(plan_to_json(PLAN), "plan.json") == PLAN


def test_defaults_round_trip():
    domain = Domain(
        name="A",
        raw_dir="/raw/A",
        modalities=("CT",),
        labels=(Label("background", (0,)), Label("x", (1,))),
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(8, 8, 8),
        patch_size=(8, 8, 8),
        pools=(1, 1, 1),
        batch_size=2,
    )
    plan = Plan((domain,))
    assert plan_from_json(plan_to_json(plan), "plan.json") == plan
    assert plan.seed == 0
    assert domain.mirror_axes == ("x",)


def test_text_can_be_read_and_edited():
    lines = plan_to_json(PLAN).splitlines()
    assert '      "spacing_mm": [3.6, 0.625, 0.7],' in lines
    assert '      "name": "Hüfte",' in lines
    assert max(map(len, lines)) <= 90


def test_load_plan(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(InputError, match=r"plan\.json: expected a plan"):
        load_plan(path)
    path.write_text(plan_to_json(PLAN), encoding="utf-8")
    assert load_plan(path) == PLAN
    path.write_text("{")
    with pytest.raises(InputError, match=r"plan\.json: expected JSON"):
        load_plan(path)


def test_what_a_domain_knows():
    assert KNEE.num_modalities == 2
    assert KNEE.num_classes == 2
    assert KNEE.cases("train") == ("a", "b")
    assert KNEE.cases("validation") == ("c",)
    assert KNEE.cases("test") == ("d",)
    assert KNEE.watched_split == "validation"
    assert HIP.watched_split == "test"
    with pytest.raises(ValueError, match="split: expected one of"):
        KNEE.cases("val")


def test_domains_by_name():
    assert PLAN.names == ("Knee", "Hüfte")
    assert PLAN.index("Hüfte") == 1
    assert PLAN.select(["Hüfte", "Knee"]).names == ("Hüfte", "Knee")
    assert PLAN.select(["Hüfte"]).seed == 7
    assert PLAN.select([]) is PLAN
    with pytest.raises(InputError, match="'Elbow' is not in the plan.*Knee, Hüfte"):
        PLAN.select(["Elbow"])


def edited(path, value):
    """The plan as JSON with one field replaced, or removed where it is `...`."""
    content = json.loads(plan_to_json(PLAN))
    *parents, last = path
    where = content
    for key in parents:
        where = where[key]
    if value is ...:
        del where[last]
    else:
        where[last] = value
    return json.dumps(content)


D, P, L = ["domains", 1], ["domains", 1, "preprocessing"], ["domains", 1, "labels", 1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["format"], ...),
        (["seed"], -1),
        (["seed"], "0"),
        (["seed"], True),
        (["more"], 1),
        (["domains"], []),
        (["domains"], {}),
        (D, 5),
        ([*D, "name"], ""),
        ([*D, "name"], 5),
        ([*D, "name"], ...),
        ([*D, "raw_dir"], None),
        ([*D, "modalities"], []),
        ([*D, "modalities"], ["T1", "T1"]),
        ([*D, "modalities"], [1]),
        ([*D, "labels"], [{"name": "b", "values": [0], "keep_components": 0}]),
        ([*D, "labels"], 3),
        ([*D, "spacing_mm"], [1, 1]),
        ([*D, "spacing_mm"], [1, 1, 0]),
        ([*D, "spacing_mm"], [1, 1, "1"]),
        ([*D, "spacing_mm"], [1, 1, float("inf")]),
        ([*D, "spacing_mm"], [1, 1, float("nan")]),
        ([*D, "median_shape"], [1, 1, 0]),
        ([*D, "median_shape"], [1, 1, 1.5]),
        ([*D, "patch_size"], [20, 192]),
        ([*D, "patch_size"], [20, 192, 100]),
        ([*D, "pools"], [2, 5, -1]),
        ([*D, "pools"], [2, 5, True]),
        ([*D, "batch_size"], 0),
        ([*D, "batch_size"], 2.0),
        ([*D, "mirror_axes"], ["w"]),
        ([*D, "mirror_axes"], "x"),
        ([*D, "mirror_axes"], ["x", "x"]),
        ([*D, "preprocessing"], []),
        ([*D, "train"], ["a", "a"]),
        ([*D, "validation"], ["a"]),
        ([*D, "test"], ["b"]),
        ([*D, "test"], "d"),
        ([*D, "tests"], []),
        ([*P, "margin_voxels"], -1),
        ([*P, "clip_percentiles"], [98, 2]),
        ([*P, "clip_percentiles"], [2]),
        ([*P, "clip_percentiles"], [-1, 98]),
        ([*P, "clip_percentiles"], [2, 101]),
        ([*P, "clip_percentiles"], [True, 98]),
        ([*P, "spacing_source"], "sform"),
        ([*P, "unknown_labels"], "skip"),
        ([*P, "more"], 1),
        ([*L, "name"], ""),
        ([*L, "values"], []),
        ([*L, "values"], [1.5]),
        ([*L, "values"], [True]),
        ([*L, "keep_components"], -1),
        ([*L, "more"], 1),
    ],
)
def test_bad_field_is_named(path, value):
    with pytest.raises(InputError, match=r"^my/plan\.json: .*expected") as error:
        plan_from_json(edited(path, value), "my/plan.json")
    names = [part for part in path if isinstance(part, str)]
    assert names[-1] in str(error.value)
    if len(path) > 2:
        assert "domains[1]" in str(error.value)


def test_value_in_two_classes_is_an_error():
    with pytest.raises(InputError, match="each value in one class only"):
        plan_from_json(edited([*L, "values"], [0, 1]), "plan.json")


def test_first_class_is_the_background():
    labels = [
        {"name": "bone", "values": [1], "keep_components": 0},
        {"name": "background", "values": [0], "keep_components": 0},
    ]
    with pytest.raises(InputError, match=r"domains\[1\].labels: expected"):
        plan_from_json(edited([*D, "labels"], labels), "plan.json")


def test_one_name_twice_is_an_error():
    with pytest.raises(InputError, match="distinct names"):
        plan_from_json(edited([*D, "name"], "Knee"), "plan.json")


@pytest.mark.parametrize("text", ["[]", "5", "null"])
def test_what_is_no_plan_is_named(text):
    with pytest.raises(InputError, match="plan.json: the plan: expected an object"):
        plan_from_json(text, "plan.json")


def test_whole_numbers_are_spacings_too():
    plan = plan_from_json(edited([*D, "spacing_mm"], [5, 1, 1]), "plan.json")
    assert plan.domains[1].spacing_mm == (5.0, 1.0, 1.0)
    assert isinstance(plan.domains[1].spacing_mm[0], float)


def test_plans_compare_by_content():
    assert copy.deepcopy(PLAN) == PLAN
    assert dataclasses.replace(PLAN, seed=8) != PLAN


def test_a_domain_cannot_be_selected_twice():
    with pytest.raises(InputError, match="expected each once"):
        PLAN.select(["Knee", "Knee"])


def test_two_classes_of_one_name_are_refused():
    twice = (*KNEE.labels, Label("bone", (77,)))
    plan = Plan((dataclasses.replace(KNEE, labels=twice),))
    with pytest.raises(InputError, match="labels: expected distinct names"):
        plan_from_json(plan_to_json(plan), "plan.json")


@pytest.mark.parametrize("name", ["../knee", "a/b", "a\\b", "..", "/knee"])
def test_a_domain_is_no_path(name):
    with pytest.raises(InputError, match="name: expected the name of a folder"):
        plan_from_json(edited([*D, "name"], name), "plan.json")
