import dataclasses
import json

import pytest
from invented_plan import ORGAN as DOMAIN

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.shards import manifest

OTHER = dataclasses.replace(DOMAIN, name="Task91_Other")


def make_entry(case, group, shard):
    return manifest.CaseEntry(
        case=case,
        group=group,
        shard=shard,
        files=[f"/raw/{case}.nii.gz", f"/raw/{case} é.nii.gz"],
        raw_shape=[10, 20, 30],
        raw_spacing_mm=[3.3, 0.1, 1.0],
        raw_orientation="LPS",
        raw_affine=[[1.0, 0.1, 0.0, -3.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]],
        crop_start=[0, 1, 2],
        crop_shape=[10, 18, 25],
        shape=[11, 18, 25],
        spacing_mm=[3.0, 1.0, 1.0],
        label_voxels=[4900, 50],
        num_bytes=1234,
        checksum="ab" * 32,
    )


def make_manifest(domain=DOMAIN):
    return manifest.Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype="float16",
        compression="gzip",
        cases=(
            make_entry("b", "train", "train-00001-of-00002.tfrecord"),
            make_entry("a", "train", "train-00000-of-00002.tfrecord"),
            make_entry("d", "test", "test-00000-of-00001.tfrecord"),
        ),
        skipped={"c": "/raw/c.nii.gz: expected finite voxels, found 2 that are not"},
        shard_size_mb=0.5,
        raw_signatures={"a": [[10, 11], [12, 13]], "c": [[1, 2], None]},
    )


def write_converted(folder, plan=None, manifests=None):
    plan = plan or Plan((DOMAIN, OTHER))
    files.write_text(folder / "plan.json", plan_to_json(plan))
    for domain in plan.domains:
        text = manifest.to_json(make_manifest(domain))
        files.write_text(manifest.manifest_path(folder, domain.name), text)
    return folder


def test_manifest_round_trip(tmp_path):
    write_converted(tmp_path)
    assert manifest.load_manifest(tmp_path, DOMAIN.name) == make_manifest()


def test_manifest_without_cases_round_trip(tmp_path):
    empty = dataclasses.replace(
        make_manifest(), cases=(), skipped={}, raw_signatures={}
    )
    files.write_text(
        manifest.manifest_path(tmp_path, DOMAIN.name), manifest.to_json(empty)
    )
    assert manifest.load_manifest(tmp_path, DOMAIN.name) == empty


def test_manifest_has_a_line_per_case():
    lines = manifest.to_json(make_manifest()).splitlines()
    assert sum('"case": ' in line for line in lines) == 3
    assert next(line for line in lines if '"case": "d"' in line).count("crop_") == 2


def test_cases_and_shards_of_a_split():
    made = make_manifest()
    assert [entry.case for entry in made.entries({"a", "b"})] == ["b", "a"]
    assert [entry.case for entry in made.entries(())] == []
    assert made.shards(["d"]) == ["test-00000-of-00001.tfrecord"]
    assert made.shards(["a", "b"]) == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]


def test_a_shard_with_additional_cases_is_an_error():
    name = "train-00000-of-00001.tfrecord"
    cases = (make_entry("a", "train", name), make_entry("b", "train", name))
    made = dataclasses.replace(make_manifest(), cases=cases)
    assert made.shards(("a", "b")) == [name]
    match = (
        f"Task90_Organ/{name}: expected only cases of one group, such as a. .*: b of"
    )
    with pytest.raises(InputError, match=match):
        made.shards(("a",))


# Hash of DOMAIN by versions before the later fields of `Preprocessing`.
OLD_HASH = "d36b1261040d22db0d831a96b91c9d1b4b45a8c2de40d234e197f62ee817cd0d"


def test_all_differences_are_listed():
    made = make_manifest()
    assert made.differences(DOMAIN) == []
    shard = "test-00000-of-00001.tfrecord"
    moved = dataclasses.replace(made.cases[0], group="test", shard=shard)
    made = dataclasses.replace(made, cases=(moved, made.cases[1], made.cases[1]))
    assert [str(difference) for difference in made.differences(DOMAIN)] == [
        "expected case a in train, as in the plan. Received: shards of a different "
        "plan, where it is duplicated",
        "expected case b in train, as in the plan. Received: shards of a different "
        "plan, where it is in test",
        "expected case d in test, as in the plan. Received: shards of a different "
        "plan, where it is absent",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"spacing_mm": [2.0, 1.0, 1.0]},
            "expected case a with spacing_mm [3.0, 1.0, 1.0]. "
            "Received: [2.0, 1.0, 1.0]",
        ),
        ({"shape": [99, 50]}, "expected case a with dimensions 3. Received: 2"),
        (
            {"label_voxels": [4900, 49, 1]},
            "expected case a with number of classes 2. Received: 3",
        ),
        (
            {"label_voxels": [4900, 49]},
            "expected case a with voxels 4950. Received: 4949",
        ),
    ],
)
def test_entries_that_contradict_the_domain(changes, words):
    made = make_manifest()
    other = dataclasses.replace(made.cases[1], **changes)
    made = dataclasses.replace(made, cases=(made.cases[0], other, made.cases[2]))
    assert [str(difference) for difference in made.differences(DOMAIN)] == [words]


def write_format_1(folder, domain=DOMAIN):
    """Writes plan and manifest as versions before folds did."""
    write_converted(folder, Plan((domain,)))
    path = folder / "plan.json"
    content = {**json.loads(path.read_text()), "format": 1}
    del content["written_by"], content["domains"][0]["folds"]
    path.write_text(json.dumps(content))
    path = manifest.manifest_path(folder, domain.name)
    content = {**json.loads(path.read_text()), "format": 1}
    del content["written_by"]
    for entry in content["cases"]:
        entry["split"] = entry.pop("group")
    content["fingerprint"] = OLD_HASH
    path.write_text(json.dumps(content))


def test_shards_of_format_1_are_valid(tmp_path):
    write_format_1(tmp_path)
    plan, (made,) = manifest.load_converted(tmp_path)
    assert plan == Plan((DOMAIN,))
    assert made.cases == make_manifest().cases


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing_mm": (3.0, 1.0, 1.1)},
        {"train": ("a",)},
        {"validation": ()},
        {"test": ("b", "d"), "train": ("a",)},
    ],
)
def test_shards_of_format_1_and_a_different_plan(tmp_path, changes):
    write_format_1(tmp_path)
    plan = Plan((dataclasses.replace(DOMAIN, **changes),))
    files.write_text(tmp_path / "plan.json", plan_to_json(plan))
    with pytest.raises(InputError, match="Received: shards of a different plan"):
        manifest.load_converted(tmp_path)


def test_older_shards_without_later_fields_are_valid(tmp_path):
    write_format_1(tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    preprocessing = content["domains"][0]["preprocessing"]
    for name in ("intensity_floor", "statistics_over", "size_rounding"):
        del preprocessing[name]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    path = manifest.manifest_path(tmp_path, DOMAIN.name)
    assert OLD_HASH in path.read_text()
    plan, _ = manifest.load_converted(tmp_path)
    assert plan == Plan((DOMAIN,))


def test_plan_and_manifests_have_the_requested_order(tmp_path):
    write_converted(tmp_path)
    plan, manifests = manifest.load_converted(tmp_path)
    assert plan == Plan((DOMAIN, OTHER))
    assert [made.domain for made in manifests] == [DOMAIN.name, OTHER.name]
    plan, manifests = manifest.load_converted(tmp_path, [OTHER.name, DOMAIN.name])
    assert plan.names == (OTHER.name, DOMAIN.name)
    assert [made.domain for made in manifests] == [OTHER.name, DOMAIN.name]


def test_domains_that_are_not_requested_may_be_missing(tmp_path):
    write_converted(tmp_path)
    manifest.manifest_path(tmp_path, OTHER.name).unlink()
    plan, _ = manifest.load_converted(tmp_path, [DOMAIN.name])
    assert plan.names == (DOMAIN.name,)
    with pytest.raises(InputError, match="Task91_Other/manifest.json: .*no such file"):
        manifest.load_converted(tmp_path)


def test_missing_plan_names_the_file(tmp_path):
    with pytest.raises(InputError, match="plan.json: .*Received: no such file"):
        manifest.load_converted(tmp_path)


def test_shards_of_another_plan_are_an_error(tmp_path):
    write_converted(tmp_path)
    other = dataclasses.replace(DOMAIN, spacing_mm=(2.0, 1.0, 1.0))
    files.write_text(tmp_path / "plan.json", plan_to_json(Plan((other,))))
    with pytest.raises(InputError, match="manifest.json: .*shards of a different plan"):
        manifest.load_converted(tmp_path)


def corrupt(change):
    """Returns the JSON of a manifest whose content was modified by `change`."""
    content = json.loads(manifest.to_json(make_manifest()))
    return json.dumps(change(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a manifest"),
        (
            '{"format": 1, "cases": [',
            "a manifest .* Received: Expecting value",
        ),
        ("[1]", "expected a manifest"),
        ("{}", "format: expected an integer from 1 to 3.*Received: nothing"),
        (corrupt(lambda c: c | {"format": 99}), "Received: 99, written by u2net-tf"),
        (corrupt(lambda c: c | {"cases": [1]}), r"cases\[0\]: expected an object"),
        (corrupt(lambda c: c | {"cases": [{"case": "a"}]}), r"cases\[0\]\.group: exp"),
        ('{"format": 1, "domain": "a"}', "a manifest .*, format 1. Received: KeyError"),
        (corrupt(lambda c: c | {"more": 1}), "more: expected no field of this name"),
        (corrupt(lambda c: c | {"domain": "x"}), "domain: expected Task90_Organ"),
        (corrupt(lambda c: c | {"compression": "zip"}), "'none' or 'gzip'. .*'zip'"),
        (corrupt(lambda c: c | {"image_dtype": "int8"}), "float32'. Received: 'int8'"),
    ],
)
def test_errors_of_invalid_content_name_the_file(tmp_path, text, message):
    path = manifest.manifest_path(tmp_path, DOMAIN.name)
    files.write_text(path, text)
    with pytest.raises(InputError, match=f"manifest.json: .*{message}"):
        manifest.load_manifest(tmp_path, DOMAIN.name)


def test_errors_of_binary_content_name_the_file(tmp_path):
    path = manifest.manifest_path(tmp_path, DOMAIN.name)
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="manifest.json: expected a manifest"):
        manifest.load_manifest(tmp_path, DOMAIN.name)


@pytest.mark.parametrize(
    "shard",
    [
        "../../other/train-00000-of-00001.tfrecord",
        "test-00000-of-00001.tfrecord",
        "train-0-of-1.tfrecord",
    ],
)
def test_a_shard_of_another_group_or_folder_is_refused(tmp_path, shard):
    content = json.loads(manifest.to_json(make_manifest()))
    content["cases"][0]["shard"] = shard
    path = manifest.manifest_path(tmp_path, DOMAIN.name)
    files.write_text(path, json.dumps(content))
    with pytest.raises(
        InputError, match="cases: b: shard: expected a shard of the gro"
    ):
        manifest.load_manifest(tmp_path, DOMAIN.name)


@pytest.mark.parametrize(
    "group", ["../../other", "/a", r"..\a", "fold", "fold٣", "all"]
)
def test_an_invalid_group_is_refused(tmp_path, group):
    """Its shards would be in another folder."""
    content = json.loads(manifest.to_json(make_manifest()))
    shard = f"{group}-00000-of-00001.tfrecord"
    content["cases"][0] |= {"group": group, "shard": shard}
    path = manifest.manifest_path(tmp_path, DOMAIN.name)
    files.write_text(path, json.dumps(content))
    with pytest.raises(InputError, match="cases: b: group: expected train, validation"):
        manifest.load_manifest(tmp_path, DOMAIN.name)
