import dataclasses
import hashlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from recorded_progress import RecordedProgress

from data_prep import verify
from data_prep.config import VerifyConfig
from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain, Label, Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.shards import manifest, records

DOMAIN = Domain(
    name="Task90_Organ",
    raw_dir="raw",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("organ", (1,))),
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(4, 5, 6),
    patch_size=(4, 4, 4),
    pools=(1, 1, 1),
    batch_size=1,
    train=("a", "b", "c"),
    test=("d",),
)
OTHER = dataclasses.replace(DOMAIN, name="Task91_Other")
TRAIN = "train-00000-of-00001.tfrecord"
TEST = "test-00000-of-00001.tfrecord"


def make_record(domain, case):
    generator = np.random.default_rng(ord(case))
    labels = generator.integers(0, 2, (4, 5, 6), dtype=np.uint8)
    coordinates, counts = records.sample_coordinates(labels, 2, per_class=9, seed=0)
    return records.Record(
        domain=domain.name,
        case=case,
        image=generator.normal(size=(4, 5, 6, 2)).astype(np.float16),
        labels=labels,
        label_counts=np.bincount(labels.ravel()),
        coordinates=coordinates,
        coordinate_counts=counts,
    )


def make_entry(record, group, shard):
    serialized = records.encode(record)
    return manifest.CaseEntry(
        case=record.case,
        group=group,
        shard=shard,
        files=["image", "label"],
        raw_shape=[4, 5, 6],
        raw_spacing_mm=[1, 1, 1],
        raw_orientation="RAS",
        raw_affine=np.eye(4).tolist(),
        crop_start=[0, 0, 0],
        crop_shape=[4, 5, 6],
        shape=[4, 5, 6],
        spacing_mm=[1, 1, 1],
        label_voxels=record.label_counts.tolist(),
        num_bytes=len(serialized),
        checksum=hashlib.sha256(serialized).hexdigest(),
    )


def write_domain(data_dir, domain, compression):
    folder = data_dir / domain.name
    folder.mkdir(parents=True)
    kind = records.COMPRESSION_TYPES[compression]
    entries = []
    for split, shard in (("train", TRAIN), ("test", TEST)):
        with tf.io.TFRecordWriter(str(folder / shard), kind) as writer:
            for case in domain.cases(split):
                record = make_record(domain, case)
                writer.write(records.encode(record))
                entries.append(make_entry(record, split, shard))
    made = manifest.Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype="float16",
        compression=compression,
        cases=tuple(entries),
        skipped={},
    )
    write_manifest(data_dir, made)


def write_manifest(data_dir, made):
    path = manifest.manifest_path(data_dir, made.domain)
    files.write_text(path, manifest.to_json(made))


def write_data(data_dir, compression):
    for domain in (DOMAIN, OTHER):
        write_domain(data_dir, domain, compression)
    files.write_text(data_dir / "plan.json", plan_to_json(Plan((DOMAIN, OTHER))))
    return data_dir


@pytest.fixture(scope="module", params=["none", "gzip"])
def whole(tmp_path_factory, request):
    return write_data(tmp_path_factory.mktemp("whole") / "data", request.param)


@pytest.fixture
def data_dir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


def find_problems(data_dir, domain=DOMAIN):
    made = manifest.load_manifest(data_dir, domain.name)
    return verify.verify_domain(data_dir, domain, made)


def change_entry(data_dir, **changes):
    """Changes the manifest's entry of the second training case."""
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    cases = list(made.cases)
    cases[1] = dataclasses.replace(cases[1], **changes)
    write_manifest(data_dir, dataclasses.replace(made, cases=tuple(cases)))


def test_whole_shards_have_no_problems(whole):
    assert find_problems(whole) == []
    assert find_problems(whole, OTHER) == []


def test_shard_cut_short_within_a_record(data_dir):
    path = data_dir / DOMAIN.name / TRAIN
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - len(content) // 4])
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: expected 3 records. Received: a truncated or")
    assert "after 2" in problem


def test_shard_cut_short_between_two_records(data_dir):
    compression = manifest.load_manifest(data_dir, DOMAIN.name).compression
    path = data_dir / DOMAIN.name / TRAIN
    kind = records.COMPRESSION_TYPES[compression]
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        for case in "ab":
            writer.write(records.encode(make_record(DOMAIN, case)))
    (problem,) = find_problems(data_dir)
    assert problem == f"{path}: expected 3 records. Received: 2"


def test_empty_shard(data_dir):
    path = data_dir / DOMAIN.name / TEST
    path.write_bytes(b"")
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: expected 1 record. Received: ")


@pytest.mark.parametrize("position", [0.02, 0.3, 0.5, 0.8, 0.98])
def test_flipped_byte(data_dir, position):
    path = data_dir / DOMAIN.name / TRAIN
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0xFF
    path.write_bytes(content)
    problems = find_problems(data_dir)
    assert problems
    assert all(problem.startswith(f"{path}: expected ") for problem in problems)


def test_missing_shard(data_dir):
    path = data_dir / DOMAIN.name / TEST
    path.unlink()
    assert find_problems(data_dir) == [
        f"{path}: expected a shard. Received: no such file"
    ]


def test_extra_shard(data_dir):
    path = data_dir / DOMAIN.name / "train-00001-of-00002.tfrecord"
    shutil.copy(data_dir / DOMAIN.name / TRAIN, path)
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: expected a shard of the manifest")


def test_records_of_another_domain(data_dir):
    path = data_dir / DOMAIN.name / TEST
    shutil.copy(data_dir / OTHER.name / TEST, path)
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: d: expected the checksum")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checksum": "0" * 64}, "b: expected the checksum 0000"),
        (
            {"shape": [4, 5, 7]},
            r"b: expected shape (4, 5, 7, 2). Received: (4, 5, 6, 2)",
        ),
        (
            {"label_voxels": [119, 1]},
            "b: expected [119, 1] voxels per class. Received: [",
        ),
    ],
)
def test_manifest_that_disagrees_with_a_record(data_dir, changes, message):
    change_entry(data_dir, **changes)
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{data_dir / DOMAIN.name / TRAIN}: {message}")


def test_number_of_modalities_is_that_of_the_plan(data_dir):
    domain = dataclasses.replace(DOMAIN, modalities=("T2",))
    problems = find_problems(data_dir, domain)
    assert len(problems) == 5
    assert "manifest.json: expected shards of this plan" in problems[0]
    assert "d: expected shape (4, 5, 6, 1)" in problems[-1]


def test_voxels_that_are_not_finite(data_dir):
    record = make_record(DOMAIN, "d")
    record.image[0, 0, 0, 0] = np.inf
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    path = data_dir / DOMAIN.name / TEST
    kind = records.COMPRESSION_TYPES[made.compression]
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        writer.write(records.encode(record))
    cases = (*made.cases[:-1], make_entry(record, "test", TEST))
    write_manifest(data_dir, dataclasses.replace(made, cases=cases))
    assert find_problems(data_dir) == [
        f"{path}: d: expected finite voxels. Received: NaN or infinity"
    ]


def test_manifest_that_lacks_a_case(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    write_manifest(data_dir, dataclasses.replace(made, cases=made.cases[1:]))
    problems = find_problems(data_dir)
    path = manifest.manifest_path(data_dir, DOMAIN.name)
    assert problems[0] == (
        f"{path}: expected case a in train, as in the plan. Received: shards of "
        "another plan, where it is not there"
    )
    shard = data_dir / DOMAIN.name / TRAIN
    assert problems[-1] == f"{shard}: expected 2 records. Received: 3"


def test_skipped_cases_are_not_expected(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    domain = dataclasses.replace(DOMAIN, train=("a", "b", "c", "e"))
    made = dataclasses.replace(made, skipped={"e": "labelsTr/e.nii.gz: …"})
    assert verify.verify_domain(data_dir, domain, made) == []


# Once also by an interpreter that imports everything by itself.
@pytest.mark.parametrize(
    "runner", ["run_warm", pytest.param("run_command", marks=pytest.mark.slow)]
)
def test_command_says_what_it_verified(tmp_path, runner, request):
    run = request.getfixturevalue(runner)
    whole = write_data(tmp_path / "data", "gzip")
    done = run("data_prep.verify", data_dir=whole)
    assert done.stdout.splitlines() == [
        "Task90_Organ: 4 cases, as in the manifest",
        "Task91_Other: 4 cases, as in the manifest",
        f"8 cases of 2 domains verified in {whole}",
    ]
    if runner == "run_command":
        assert done.stderr == "", "neither a progress bar nor TensorFlow's start"


def test_command_ends_with_the_problems_and_what_to_do(data_dir, capsys):
    (data_dir / OTHER.name / TEST).unlink()
    (data_dir / OTHER.name / TRAIN).write_bytes(b"short")
    with pytest.raises(SystemExit) as ended:
        verify.main(VerifyConfig(data_dir=str(data_dir)))
    message = ended.value.code
    assert message.startswith("error: not as converted:\n")
    assert f"{data_dir / OTHER.name / TEST}: expected a shard" in message
    assert f"{data_dir / OTHER.name / TRAIN}: expected 3 records" in message
    assert "python -m data_prep.convert" in message
    printed = capsys.readouterr().out
    assert printed.startswith(f"{DOMAIN.name}: 4 cases, as in the manifest\n")
    assert "verified" not in printed


def test_command_looks_at_the_domains_asked_for(tmp_path, run_light):
    data_dir = write_data(tmp_path / "data", "none")
    for domain in (DOMAIN, OTHER):
        manifest.manifest_path(data_dir, domain.name).unlink()
    for flags, name in (({}, DOMAIN.name), ({"domains": OTHER.name}, OTHER.name)):
        done = run_light("data_prep.verify", data_dir=data_dir, status=1, **flags)
        assert f"{name}/manifest.json: expected a manifest" in done.stderr


def test_command_looks_at_the_domains_that_are_there(data_dir, capsys):
    verify.main(VerifyConfig(data_dir=str(data_dir)))
    assert "not converted" not in capsys.readouterr().out
    shutil.rmtree(data_dir / DOMAIN.name)
    verify.main(VerifyConfig(data_dir=str(data_dir)))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"{OTHER.name}: 4 cases, as in the manifest",
        f"4 cases of 1 domain verified in {data_dir}",
        f"not converted, of the plan's domains: {DOMAIN.name}",
    ]
    with pytest.raises(InputError, match=f"{DOMAIN.name}.*no such file"):
        verify.main(VerifyConfig(data_dir=str(data_dir), domains=(DOMAIN.name,)))
    shutil.rmtree(data_dir / OTHER.name)
    with pytest.raises(InputError, match=f"{DOMAIN.name}.*no such file"):
        verify.main(VerifyConfig(data_dir=str(data_dir)))


@pytest.mark.parametrize("data_dir", ["", "nowhere"])
def test_command_needs_a_converted_folder(data_dir, run_light):
    done = run_light("data_prep.verify", data_dir=data_dir, status=1)
    expected = "nowhere/plan.json: expected a plan" if data_dir else "--data_dir: "
    assert f"error: {expected}" in done.stderr


def test_progress_counts_the_shards(data_dir):
    progress = RecordedProgress()
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    assert verify.verify_domain(data_dir, DOMAIN, made, progress=progress) == []
    assert progress.counts == [(DOMAIN.name, "shard", 2)]
