"""Names on disk, versions of formats, and errors in files."""

import dataclasses
import itertools
import json
from typing import Annotated

import pydantic
import pytest
from pydantic import Field

from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_domains import EXAMINED_CASE
from data_prep.survey.survey_file import SURVEY
from u2net_tf import file_format, schema
from u2net_tf.certification.certificate import CERTIFICATE
from u2net_tf.errors import InputError
from u2net_tf.evaluation.scored_case import SCORE
from u2net_tf.evaluation.tables import SUMMARY
from u2net_tf.file_format import FileFormat
from u2net_tf.inference.label_table import LABEL_TABLE
from u2net_tf.inference.outputs import RECORD
from u2net_tf.models.adapter_files import METADATA
from u2net_tf.models.exported import EXPORT_FORMAT
from u2net_tf.models.model_file_format import MODEL_FILE
from u2net_tf.models.run_state import STATE
from u2net_tf.models.spec import MODEL
from u2net_tf.plan.plan_file import PLAN
from u2net_tf.schema import Size, Text
from u2net_tf.shards.manifest import MANIFEST


@schema.model
class Inner:
    edge_mm: float
    sizes: tuple[Size, Size] = (1, 1)


@schema.model
class Outer:
    parts: Annotated[tuple[Inner, ...], Field(min_length=1)]
    title: Text = Field(alias="name")
    by_name: dict[str, Inner] = Field(default_factory=dict)
    note: str | None = None

    def __post_init__(self):
        edges = [part.edge_mm for part in self.parts]
        schema.require_distinct("parts", edges, "distinct edges")


def upgrade(content):
    return {"note": None, "by_name": {}, **content}


FORMAT = FileFormat(
    name="a thing", made_by="make", kind=Outer, oldest=1, upgrades=(upgrade,)
)
OUTER = Outer(title="x", parts=(Inner(0.5), Inner(1.5, (2, 3))))


def edited(**changes):
    return json.dumps({**FORMAT.to_dict(OUTER), **changes})


def test_round_trip():
    fields = FORMAT.to_dict(OUTER)
    assert list(fields)[:2] == ["format", "written_by"]
    assert (fields["format"], fields["written_by"]) == (2, file_format.version())
    assert fields["name"] == "x"
    assert FORMAT.from_text(json.dumps(fields), "f") == OUTER


def test_only_older_files_are_upgraded():
    fields = FORMAT.to_dict(OUTER)
    del fields["note"], fields["by_name"], fields["written_by"]
    assert FORMAT.from_text(json.dumps({**fields, "format": 1}), "f") == OUTER
    with pytest.raises(InputError, match="f: by_name: expected a value. Received: not"):
        FORMAT.from_text(json.dumps(fields), "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            edited(format=3, written_by="u2net-tf 9"),
            "format: .* 3, written by u2n",
        ),
        (edited(format=0), "format: expected an integer from 1 to 2"),
        (edited(format=True), "format: .*Received: True"),
        (edited(format="2"), "format: .*Received: '2'"),
        (edited(name=""), "name: expected a non-empty string. Received: ''"),
        (edited(name=5), "name: expected a string. Received: 5"),
        (edited(title="x"), "title: expected no field of this name"),
        (edited(notes="x"), "notes: expected no .* 'x'. Did you mean 'note'?"),
        (edited(parts=[]), "parts: expected at least 1 items"),
        (edited(parts={}), "parts: expected a list. Received: {}"),
        (edited(parts=[3]), r"parts\[0\]: expected an object. Received: 3"),
        (
            edited(parts=[{"edge_mm": 1, "sizes": [1, 0]}]),
            r"parts\[0\].sizes\[1\]: expected a number of at least 1. Received: 0",
        ),
        (
            edited(parts=[{"edge_mm": 1, "sizes": [1, 2.5]}]),
            r"parts\[0\].sizes\[1\]: expected an integer. Received: 2.5",
        ),
        (
            edited(parts=[{"edge_mm": 1, "sizes": [1]}]),
            r"parts\[0\].sizes\[1\]: expected a value. Received: nothing",
        ),
        (
            edited(parts=[{"edge_m": 1, "sizes": [1, 1]}]),
            r"parts\[0\].edge_m: .* Did you mean 'edge_mm'?",
        ),
        (
            edited(parts=[{"edge_mm": 1}]),
            r"parts\[0\].sizes: expected a value. Received: nothing",
        ),
        (
            edited(by_name={"a": {"edge_mm": float("nan"), "sizes": [1, 1]}}),
            "by_name.a.edge_mm: expected a finite number. Received: nan",
        ),
        (
            edited(parts=[{"edge_mm": 1, "sizes": [1, 1]}] * 2),
            r"parts: expected distinct edges. Received: several times: 1.0",
        ),
        ("[]", "expected a thing written by `make`, an object. Received: list"),
        ("{", "expected a thing written by `make`. Received: Expecting"),
        (edited()[:-1] + ', "note": "y"}', "field 'note': expected it once. Received"),
    ],
)
def test_errors_name_the_field(text, message):
    with pytest.raises(InputError, match=f"^my/file.json: {message}"):
        FORMAT.from_text(text, "my/file.json")


def test_missing_or_binary_file(tmp_path):
    with pytest.raises(InputError, match="x: expected a thing .*: no such file"):
        FORMAT.load(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="x: expected a thing .*, in UTF-8.*: UTF-16"):
        FORMAT.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (PLAN, {"format": 1, "domains": ["abc"], "seed": 0}),
        (PLAN, {"format": 1, "domains": 5, "seed": 0}),
        (MANIFEST, {"format": 1, "cases": ["abc"]}),
        (MANIFEST, {"format": 1, "cases": None}),
        (SURVEY, {"format": 1, "domains": ["abc"]}),
        (MODEL, {"plan": "{", "pools": [1, 1, 1]}),
        (MODEL, {"plan": "[]"}),
        (MODEL, {"plan": {}}),
        (MODEL, {"plan": "[" * 100_000}),
        (MODEL, {"plan": '{"format": 99, "domains": [], "seed": 0}'}),
        (PLAN, {"format": 1, "domains": [{"folds": []}], "seed": 0}),
        (PLAN, {"format": 2, "written_by": [1], "domains": [], "seed": 0}),
        (STATE, {"state": 3, "run": {}}),
        (STATE, {"state": {"schedule": 5}, "run": {}}),
    ],
)
def test_a_damaged_older_file_is_reported(kind, content):
    with pytest.raises(InputError, match="^the file"):
        kind.from_text(json.dumps(content), "the file")


def test_deeply_nested_json_is_reported():
    with pytest.raises(InputError, match="^the file: expected a plan"):
        PLAN.from_text("[" * 100_000, "the file")


@pytest.mark.parametrize("changes", [{"title": ""}, {"title": 5}, {"parts": ()}])
def test_a_model_made_in_code_is_validated_too(changes):
    (name,) = changes
    with pytest.raises(InputError, match=f"^Outer: {name}: expected"):
        dataclasses.replace(OUTER, **changes)


def fields_of(schema, definitions):
    """Names on disk of a model's fields, nested ones included, from its JSON schema."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    found = {}
    for name, field in schema.get("properties", {}).items():
        found[name] = fields_of(field, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found |= fields_of(schema[key], definitions)
    for option in schema.get("anyOf", ()):
        found |= fields_of(option, definitions)
    return found


CODE = {"value": {}, "scheme": {}, "meaning": {}}
LABEL = {
    **{"name": {}, "values": {}, "keep_components": {}},
    "anatomy": {"category": CODE, "type": CODE, "side": CODE},
}
PREPROCESSING = dict.fromkeys(
    (
        "margin_voxels",
        "clip_percentiles",
        "spacing_source",
        "unknown_labels",
        "intensity_floor",
        "statistics_over",
        "size_rounding",
        "round_labels",
        "resample_modalities",
    ),
    {},
)
STATISTICS = dict.fromkeys(("low", "high", "mean", "std"), {})
PREPROCESSING["intensity_statistics"] = STATISTICS
DOMAIN = {
    **dict.fromkeys(("name", "raw_dir", "modalities", "spacing_mm"), {}),
    **dict.fromkeys(("median_shape", "patch_size", "pools", "batch_size"), {}),
    **dict.fromkeys(("mirror_axes", "train", "validation", "test", "folds"), {}),
    "keep_foreground_components": {},
    "labels": LABEL,
    "ignore_label": {},
    "regions": dict.fromkeys(("name", "classes"), {}),
    "preprocessing": PREPROCESSING,
    "scans": dict.fromkeys(("spacing_mm", "extent_mm", "intensities"), {}),
}
CASE = dict.fromkeys(
    (
        *("case", "group", "shard", "files", "raw_shape", "raw_spacing_mm"),
        *("raw_orientation", "raw_affine", "crop_start", "crop_shape", "shape"),
        *("spacing_mm", "label_voxels", "num_bytes", "checksum"),
    ),
    {},
)
FACTS_BEFORE_UNITS = {
    **dict.fromkeys(("domain", "case", "image_path", "label_path", "shape"), {}),
    **dict.fromkeys(("spacing_mm", "orientation", "percentiles"), {}),
    **dict.fromkeys(("nonzero_share", "box_start", "box_shape", "box_share"), {}),
    **dict.fromkeys(("label_voxels", "component_shares", "checksum", "warnings"), {}),
    "faults": dict.fromkeys(("kind", "file", "text"), {}),
}
# Format numbers of the survey and of its log -> the fields that both have for a case;
# one line for each increase of either number.
FACTS_WITH_UNITS = {**FACTS_BEFORE_UNITS, "length_unit": {}}
FACTS = {**FACTS_WITH_UNITS, "foreground_intensities": STATISTICS}
FACTS_BY_FORMATS = {
    (2, 1): FACTS_BEFORE_UNITS,
    (3, 2): FACTS_WITH_UNITS,
    (4, 2): FACTS_WITH_UNITS,
    (5, 3): FACTS,
    # Only the fields of a domain changed.
    (6, 3): FACTS,
}
MODEL_RECORD = {
    "model_dir": {},
    "domains": {
        **dict.fromkeys(("name", "checkpoint", "trunk_sha256", "variables_sha256"), {}),
        **dict.fromkeys(("settings_sha256", "logits_sha256"), {}),
        "scans": dict.fromkeys(("name", "image_sha256", "label_map_sha256"), {}),
    },
}
CASE_COUNTS = dict.fromkeys(("domain", "train", "validation", "test"), {})
CARD_OF_DOMAIN = {
    **dict.fromkeys(("checkpoint", "written_by", "pruned_to"), {}),
    "cases": CASE_COUNTS,
    "training": dict.fromkeys(
        ("steps", "epochs", "finished", "trained", "shared_variables", "precision")
        + ("fold",),
        {},
    ),
    "evaluation": {
        **dict.fromkeys(("split", "checkpoint", "num_skipped"), {}),
        "lists_training_cases": {},
        "classes": dict.fromkeys(
            ("label", "mean", "standard_deviation", "num_cases", "num_absent"), {}
        ),
        "regions": dict.fromkeys(
            ("label", "mean", "standard_deviation", "num_cases", "num_absent")
            + ("classes",),
            {},
        ),
    },
}
NAMES_ON_DISK = {
    # Its model is in the format of checkpoints.
    "an adapter": dict.fromkeys(
        ("trunk_sha256", "variables_sha256", "licence", "card", "model"), {}
    ),
    "a certificate": {
        **dict.fromkeys(("created", "scans_dir"), {}),
        "build": dict.fromkeys(
            ("program", "commit", "python", "libraries", "system", "cpu")
            + ("num_cores", "onednn"),
            {},
        ),
        "before": MODEL_RECORD,
        "after": MODEL_RECORD,
        "verdicts": dict.fromkeys(("domain", "change", "differences"), {}),
    },
    "a label table": {
        "case": {},
        "labels": dict.fromkeys(("value", "name", "domain", "class"), {}),
        "priority": {},
        "overlaps": dict.fromkeys(("domain", "hidden", "voxels", "volume_ml"), {}),
    },
    "a plan": {"domains": DOMAIN, "seed": {}},
    "a manifest": {
        **dict.fromkeys(("domain", "fingerprint", "image_dtype", "compression"), {}),
        **dict.fromkeys(("skipped", "shard_size_mb", "raw_stamps"), {}),
        "resample_modalities": {},
        "cases": CASE,
    },
    "a survey": {
        "domains": {
            **dict.fromkeys(("name", "folder", "modalities", "labels"), {}),
            **dict.fromkeys(("spacing_source", "round_labels", "warnings"), {}),
            **dict.fromkeys(("resample_modalities", "ignore_label", "regions"), {}),
            "cases": FACTS,
        }
    },
    "a model": {
        **dict.fromkeys(("pools", "base_channels", "adapter", "second_up_conv"), {}),
        **dict.fromkeys(("patch_size", "resize_method", "architecture"), {}),
        **dict.fromkeys(("depth", "align_corners", "deep_supervision", "gates"), {}),
        "case_counts": dict.fromkeys(("domain", "train", "validation", "test"), {}),
        "plan": {"domains": DOMAIN, "seed": {}},
    },
    "a summary": {
        **dict.fromkeys(("split", "checkpoint", "mean_dice", "skipped"), {}),
        **dict.fromkeys(("postprocessing", "prediction", "depths"), {}),
        **dict.fromkeys(("checkpoint_hashes", "training_cases"), {}),
        **dict.fromkeys(("region_classes", "domains_with_unlisted_cases"), {}),
        "classes": dict.fromkeys(
            ("domain", "label", "mean", "standard_deviation", "num_cases")
            + ("num_absent", "num_without", "false_positive_ml")
            + ("hd95_mm", "surface_dice"),
            {},
        ),
        "surface_tolerance_mm": {},
        "regions": dict.fromkeys(
            ("domain", "label", "mean", "standard_deviation", "num_cases")
            + ("num_absent", "num_without", "false_positive_ml")
            + ("hd95_mm", "surface_dice"),
            {},
        ),
    },
    "the description of an exported model": {
        "domains": dict.fromkeys(("model", "fingerprint", "any_size"), {})
    },
    "the description of a model file": {
        **dict.fromkeys(("precision", "versions"), {}),
        "domains": {
            **dict.fromkeys(("name", "graph", "any_size", "fingerprint", "model"), {}),
            "labels": dict.fromkeys(("index", "name", "value", "colour"), {}),
        },
        "card": {
            "texts": dict.fromkeys(
                ("title", "authors", "contact", "licence", "intended_use")
                + ("limitations", "citation", "data"),
                {},
            ),
            "domains": CARD_OF_DOMAIN,
        },
        "members": dict.fromkeys(("name", "size", "sha256"), {}),
    },
    "a line of a survey log": {"key": {}, "facts": FACTS},
    "a record of a prediction": dict.fromkeys(("key", "stamps", "pending"), {}),
    "a score": {
        **dict.fromkeys(("key", "dice", "false_positive_ml"), {}),
        **dict.fromkeys(("surface_tolerance_mm", "hd95_mm", "surface_dice"), {}),
        "regions": dict.fromkeys(("name", "classes"), {}),
    },
    "the state of a run": {
        **dict.fromkeys(("step", "row", "run", "records"), {}),
        "num_replicas": {},
        "initial_cases": dict.fromkeys(("domain", "cases", "complete"), {}),
        "schedule": dict.fromkeys(
            ("learning_rate", "epochs", "moving_average", "reference", "finished")
            + ("window",),
            {},
        ),
        "best": dict.fromkeys(("step", "measure", "value"), {}),
        "partial_epoch": dict.fromkeys(
            ("losses", "seconds_waiting", "seconds_computing", "seconds_compiling")
            + ("skipped_steps",),
            {},
        ),
    },
}


FORMATS = (PLAN, MANIFEST, SURVEY, EXAMINED_CASE, MODEL, STATE, SUMMARY)
FORMATS += (RECORD, SCORE, METADATA, CERTIFICATE, EXPORT_FORMAT, MODEL_FILE)
FORMATS += (LABEL_TABLE,)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_rename_in_the_code_changes_no_file(kind):
    """A field that is renamed gets an alias; a new one raises the format number."""
    adapter = pydantic.TypeAdapter(kind.kind)
    found = adapter.json_schema(by_alias=True, mode="serialization")
    assert fields_of(found, found.get("$defs", {})) == NAMES_ON_DISK[kind.name]


def test_new_facts_of_a_case_raise_both_formats():
    schema_of_facts = pydantic.TypeAdapter(CaseFacts).json_schema(
        by_alias=True, mode="serialization"
    )
    found = fields_of(schema_of_facts, schema_of_facts["$defs"])
    assert found == FACTS_BY_FORMATS[SURVEY.number, EXAMINED_CASE.number]
    for (before, old), (after, new) in itertools.pairwise(FACTS_BY_FORMATS.items()):
        assert old == new or all(a < b for a, b in zip(before, after, strict=True))
