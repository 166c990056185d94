import dataclasses
import json

import pytest
from invented_plan import HIP, KNEE, PLAN

from u2net_tf.errors import InputError
from u2net_tf.models.spec import (
    ModelSpec,
    check_same_spec,
    spec_from_json,
    spec_to_json,
)
from u2net_tf.plan import plan_file
from u2net_tf.plan.anatomy import Anatomy, Code
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_file import load_plan, plan_to_json
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing
from u2net_tf.plan.scan_ranges import ScanRanges


def test_round_trip():
    assert plan_file.PLAN.from_text(plan_to_json(PLAN), "plan.json") == PLAN


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
    assert plan_file.PLAN.from_text(plan_to_json(plan), "plan.json") == plan
    assert plan.seed == 0
    assert domain.mirror_axes == ("x",)


LATER = {"intensity_floor": None, "statistics_over": "all", "size_rounding": "nearest"}


def of_format_1(text):
    """Returns a plan as versions before folds wrote it."""
    content = {**json.loads(text), "format": 1}
    del content["written_by"]
    for domain in content["domains"]:
        del domain["folds"], domain["scans"]
    return json.dumps(content)


@pytest.mark.parametrize("field", LATER)
def test_an_older_plan_without_a_field_has_its_default(field):
    plan = plan_file.PLAN.from_text(of_format_1(edited([*P, field], ...)), "plan.json")
    expected = dataclasses.replace(
        PLAN.domains[1].preprocessing, **{field: LATER[field]}
    )
    assert plan.domains[1].preprocessing == expected
    assert plan.domains[0] == PLAN.domains[0]


def test_an_older_plan_without_later_fields_has_defaults():
    content = json.loads(of_format_1(plan_to_json(PLAN)))
    for domain in content["domains"]:
        domain["preprocessing"] = {
            "margin_voxels": 5,
            "clip_percentiles": [2.0, 98.0],
            "spacing_source": "pixdim",
            "unknown_labels": "fail",
        }
    plan = plan_file.PLAN.from_text(json.dumps(content), "plan.json")
    assert plan.domains[0].preprocessing == Preprocessing()


def test_an_older_model_without_later_fields_has_defaults():
    knee = dataclasses.replace(KNEE, preprocessing=Preprocessing())
    spec = ModelSpec(plan=Plan((knee,)), pools=(1, 1, 1))
    fields = json.loads(spec_to_json(spec))
    for field in ("format", "written_by"):
        del fields[field]
    plan = fields.pop("plan")
    for field in LATER:
        del plan["domains"][0]["preprocessing"][field]
    del plan["domains"][0]["folds"], plan["domains"][0]["scans"]
    old = json.dumps({**fields, "plan": json.dumps({"format": 1, **plan})})
    assert spec_from_json(old, "checkpoint") == spec
    check_same_spec(spec, spec_from_json(old, "checkpoint"))


def test_an_older_plan_and_model_without_round_labels():
    content = json.loads(edited([*P, "round_labels"], ...))
    for domain in content["domains"]:
        domain["preprocessing"].pop("round_labels", None)
    text = json.dumps({**content, "format": 2})
    assert plan_file.PLAN.from_text(text, "plan.json") == PLAN
    spec = ModelSpec(plan=PLAN, pools=(1, 1, 1))
    fields = json.loads(spec_to_json(spec))
    fields |= {"format": 1, "plan": {k: content[k] for k in ("domains", "seed")}}
    assert spec_from_json(json.dumps(fields), "checkpoint") == spec


def pop_scans(domain):
    assert domain.pop("scans") is None


def pop_resample_modalities(domain):
    assert domain["preprocessing"].pop("resample_modalities") is False


def pop_foreground(domain):
    assert domain.pop("keep_foreground_components") == 0
    assert domain["preprocessing"].pop("intensity_statistics") is None


def pop_regions(domain):
    assert domain.pop("ignore_label") is None
    assert domain.pop("regions") == []


def pop_anatomy(domain):
    for label in domain["labels"]:
        assert label.pop("anatomy") is None


@pytest.mark.parametrize(
    ("pop", "plan_format", "model_format"),
    [
        (pop_scans, 2, 1),
        (pop_resample_modalities, 3, 2),
        (pop_anatomy, 4, 6),
        (pop_foreground, 5, 7),
        (pop_regions, 6, 8),
    ],
)
def test_an_older_plan_and_model_without_later_fields(pop, plan_format, model_format):
    spec = ModelSpec(plan=PLAN, pools=(1, 1, 1))
    plan, model = json.loads(plan_to_json(PLAN)), json.loads(spec_to_json(spec))
    for domain in (*plan["domains"], *model["plan"]["domains"]):
        pop(domain)
    old = json.dumps({**plan, "format": plan_format})
    assert plan_file.PLAN.from_text(old, "plan.json") == PLAN
    old = json.dumps({**model, "format": model_format})
    assert spec_from_json(old, "checkpoint") == spec


def test_anatomy_is_read_from_a_plan():
    text = edited([*L, "anatomy"], anatomy(value="7"))
    label = plan_file.PLAN.from_text(text, "plan.json").domains[1].labels[1]
    kind = Code("7", "SCT", "Hippocampus")
    assert label.anatomy == Anatomy(category=Code(**CODE), kind=kind)


def test_intensity_statistics_round_trip():
    statistics = IntensityStatistics(low=-90.5, high=310.0, mean=40.0, std=12.5)
    preprocessing = Preprocessing(
        intensity_statistics=(statistics, *[None] * (HIP.num_modalities - 1))
    )
    hip = dataclasses.replace(HIP, preprocessing=preprocessing)
    plan = dataclasses.replace(PLAN, domains=(KNEE, hip))
    assert plan_file.PLAN.from_text(plan_to_json(plan), "plan.json") == plan


def statistics(**changes):
    return {"low": 3, "high": 4, "mean": 3, "std": 1, **changes}


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        (
            [statistics()] * 9,
            "preprocessing.intensity_statistics: expected one entry per",
        ),
        ([statistics(high=3)], "[0]: expected low < high that differ in float32"),
        ([statistics(low=1e9, high=1e9 + 1, mean=1e9)], "[0]: expected low < high"),
        ([statistics(high=1e300)], "[0]: expected low < high"),
        ([statistics(mean=5)], "[0]: expected low < high"),
        ([statistics(std=0)], "[0]: expected low < high"),
        ([statistics(std=1e-4)], "[0]: expected low < high"),
        ([statistics(std=2e3)], "[0]: expected low < high"),
        ([None], "intensity_statistics: expected null, or statistics of at least one"),
        ([{"low": 3, "high": 4, "mean": 3}], "[0].std: expected a value"),
        ([{"low": 3, "high": 4, "mean": 3, "std": -1}], "[0].std: expected"),
    ],
)
def test_bad_intensity_statistics_are_reported(statistics, message):
    with pytest.raises(InputError) as caught:
        plan_file.PLAN.from_text(edited([*P, "intensity_statistics"], statistics), "f")
    assert message in str(caught.value)


def test_scan_ranges_round_trip():
    ranges = ScanRanges(
        spacing_mm=((1.0, 2.0), (0.5, 0.75), (0.5, 0.75)),
        extent_mm=((90.0, 100.0), (60.0, 70.0), (60.0, 70.0)),
        intensities=(((0.0, 5.0), (7.0, 9.0), (11.0, 90.5)),) * 2,
    )
    plan = dataclasses.replace(
        PLAN, domains=(dataclasses.replace(KNEE, scans=ranges), HIP)
    )
    assert plan_file.PLAN.from_text(plan_to_json(plan), "plan.json") == plan


@pytest.mark.parametrize("field", ["margin_voxels", "spacing_source"])
def test_original_fields_are_required(field):
    for text in (edited([*P, field], ...), of_format_1(edited([*P, field], ...))):
        with pytest.raises(InputError, match=f"{field}: expected .*Received: nothing"):
            plan_file.PLAN.from_text(text, "plan.json")


@pytest.mark.parametrize("field", [*LATER, "margin_voxels"])
def test_all_fields_are_required_in_a_current_plan(field):
    match = rf"domains\[1\]\.preprocessing\.{field}: expected a value. Rec.*: nothing"
    with pytest.raises(InputError, match=match):
        plan_file.PLAN.from_text(edited([*P, field], ...), "plan.json")


def test_a_misspelled_field_is_reported_with_a_suggestion():
    text = plan_to_json(PLAN).replace('"spacing_mm"', '"spacing"')
    with pytest.raises(InputError) as caught:
        plan_file.PLAN.from_text(text, "my/plan.json")
    assert str(caught.value) == (
        "my/plan.json: domains[0].spacing: expected no field of this name. Received: "
        "[3.6, 0.625, 0.7]. Did you mean 'spacing_mm'?"
    )


def test_a_duplicate_field_is_refused():
    text = plan_to_json(PLAN).replace('"seed"', '"seed": 1, "seed"')
    with pytest.raises(InputError, match=r"plan\.json: field 'seed': expected it once"):
        plan_file.PLAN.from_text(text, "plan.json")


def test_error_of_a_later_plan_names_its_version():
    content = {**json.loads(plan_to_json(PLAN)), "format": 99}
    content["written_by"] = "u2net-tf 7.1"
    with pytest.raises(InputError) as caught:
        plan_file.PLAN.from_text(json.dumps(content), "plan.json")
    assert "plan.json: format: expected an integer from 1 to 7" in str(caught.value)
    assert str(caught.value).endswith("Received: 99, written by u2net-tf 7.1")


def test_integers_are_accepted_as_floors():
    plan = plan_file.PLAN.from_text(edited([*P, "intensity_floor"], -1000), "plan.json")
    floor = plan.domains[1].preprocessing.intensity_floor
    assert floor == -1000
    assert isinstance(floor, float)


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
    with pytest.raises(InputError, match=r"plan\.json: expected a plan .*Expecting"):
        load_plan(path)


def edited(path, value):
    """Returns the JSON of the plan with a field replaced, or removed for `...`."""
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


CODE = {"value": "5366008", "scheme": "SCT", "meaning": "Hippocampus"}


def anatomy(**changes):
    return {"category": CODE, "type": {**CODE, **changes}, "side": None}


D, P, L = ["domains", 1], ["domains", 1, "preprocessing"], ["domains", 1, "labels", 1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 8),
        (["format"], 0),
        (["format"], "1"),
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
        ([*D, "ignore_label"], 3),
        ([*D, "ignore_label"], 0),
        ([*D, "ignore_label"], 9.0),
        ([*D, "regions"], [{"name": "bone", "classes": ["bone"]}]),
        ([*D, "regions"], [{"name": "all", "classes": ["background", "bone"]}]),
        ([*D, "regions"], [{"name": "all", "classes": ["bone", "bone"]}]),
        ([*D, "regions"], [{"name": "all", "classes": ["skin"]}]),
        ([*D, "regions"], [{"name": "all", "classes": []}]),
        ([*D, "regions"], [{"name": "all", "classes": ["bone"]}] * 2),
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
        ([*P, "intensity_floor"], "-1024"),
        ([*P, "intensity_floor"], True),
        ([*P, "intensity_floor"], float("nan")),
        ([*P, "intensity_floor"], float("-inf")),
        ([*P, "statistics_over"], "negative"),
        ([*P, "statistics_over"], None),
        ([*P, "size_rounding"], "up"),
        ([*P, "size_rounding"], 1),
        ([*P, "more"], 1),
        # Values that would need excessive time or memory.
        ([*D, "pools"], [99999999999, 1, 1]),
        ([*D, "pools"], [17, 1, 1]),
        ([*D, "patch_size"], [2**17, 8, 8]),
        ([*D, "median_shape"], [10**12, 8, 8]),
        ([*D, "batch_size"], 2**17),
        ([*P, "margin_voxels"], 2**17),
        ([*L, "values"], [2**53]),
        ([*L, "values"], [-(2**53)]),
        ([*L, "keep_components"], 2**63),
        (["seed"], 2**63),
        ([*L, "name"], ""),
        ([*L, "values"], []),
        ([*L, "values"], [1.5]),
        ([*L, "values"], [True]),
        ([*L, "keep_components"], -1),
        ([*L, "more"], 1),
        ([*L, "anatomy"], "Hippocampus"),
        ([*L, "anatomy"], {"category": CODE, "type": CODE}),
        ([*L, "anatomy"], {"category": CODE, "kind": CODE, "side": None}),
        ([*L, "anatomy"], {"category": CODE, "type": None, "side": None}),
        ([*L, "anatomy"], anatomy(value="1" * 17)),
        ([*L, "anatomy"], anatomy(value=5366008)),
        ([*L, "anatomy"], anatomy(scheme="")),
        ([*L, "anatomy"], anatomy(meaning="a^b")),
        ([*L, "anatomy"], anatomy(meaning="a\\b")),
        ([*L, "anatomy"], anatomy(meaning="a\nb")),
        ([*L, "anatomy"], anatomy(meaning="m" * 65)),
    ],
)
def test_bad_field_is_reported(path, value):
    with pytest.raises(InputError, match=r"^my/plan\.json: .*expected") as error:
        plan_file.PLAN.from_text(edited(path, value), "my/plan.json")
    names = [part for part in path if isinstance(part, str)]
    assert names[-1] in str(error.value)
    if len(path) > 2:
        assert "domains[1]" in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("value", "1" * 17, r"1 to 16 letters, .* Received: '1{17}'"),
        ("scheme", 5, "1 to 16 letters, .* Received: 5"),
        (
            "meaning",
            "a^b",
            r"1 to 64 characters .* \\, \^, .* Received: 'a\^b'",
        ),
    ],
)
def test_a_code_that_is_not_allowed_says_what_is(field, value, message):
    text = edited([*L, "anatomy"], anatomy(**{field: value}))
    with pytest.raises(InputError, match=rf"anatomy.type.{field}: expected {message}"):
        plan_file.PLAN.from_text(text, "my/plan.json")


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ([*L, "name"], "bone\nmarrow", "bone\\nmarrow"),
        ([*D, "regions"], [{"name": "a\rb", "classes": ["bone"]}], "a\\rb"),
    ],
)
def test_names_can_be_columns_of_a_table(path, value, name, tmp_path):
    text = edited(path, value)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError) as error:
        load_plan(tmp_path / "plan.json")
    assert f"plan.json: {HIP.name}: expected printable names" in str(error.value)
    assert str(error.value).endswith(f"Received: '{name}'")
    # As part of a model, an older version accepted them.
    assert plan_file.PLAN.from_text(text, "plan.json").domains


def test_value_in_two_classes_is_an_error():
    with pytest.raises(InputError, match="each value in one class only"):
        plan_file.PLAN.from_text(edited([*L, "values"], [0, 1]), "plan.json")


def test_first_class_is_the_background():
    labels = [
        {"name": "bone", "values": [1], "keep_components": 0},
        {"name": "background", "values": [0], "keep_components": 0},
    ]
    with pytest.raises(InputError, match=r"domains\[1\].labels: expected"):
        plan_file.PLAN.from_text(edited([*D, "labels"], labels), "plan.json")


def test_duplicate_name_is_an_error():
    with pytest.raises(InputError, match="distinct names"):
        plan_file.PLAN.from_text(edited([*D, "name"], "Knee"), "plan.json")


@pytest.mark.parametrize("text", ["[]", "5", "null"])
def test_files_that_are_not_plans_are_reported(text):
    with pytest.raises(InputError, match="plan.json: expected a plan .*, an object"):
        plan_file.PLAN.from_text(text, "plan.json")


def test_integers_are_accepted_as_spacings():
    plan = plan_file.PLAN.from_text(edited([*D, "spacing_mm"], [5, 1, 1]), "plan.json")
    assert plan.domains[1].spacing_mm == (5.0, 1.0, 1.0)
    assert isinstance(plan.domains[1].spacing_mm[0], float)


def test_duplicate_classes_are_refused():
    with pytest.raises(InputError, match=r"domains\[1\]\.labels: expected distinct"):
        plan_file.PLAN.from_text(edited([*L, "name"], "background"), "plan.json")
    with pytest.raises(ValueError, match="labels: expected distinct names"):
        dataclasses.replace(KNEE, labels=(*KNEE.labels, Label("bone", (77,))))


@pytest.mark.parametrize("name", ["../knee", "a/b", "a\\b", "..", "/knee"])
def test_name_of_a_domain_must_not_be_a_path(name):
    with pytest.raises(InputError, match="name: expected a folder name"):
        plan_file.PLAN.from_text(edited([*D, "name"], name), "plan.json")
