import dataclasses
import hashlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from recorded_progress import RecordedProgress
from small_shards import (
    DOMAIN,
    OTHER,
    TEST,
    TRAIN,
    make_record,
    write_data,
    write_manifest,
)

from data_prep import verify
from data_prep.config import VerifyConfig
from u2net_tf.errors import InputError
from u2net_tf.shards import manifest, records


@pytest.fixture(scope="module", params=["none", "gzip"])
def intact(tmp_path_factory, request):
    return write_data(tmp_path_factory.mktemp("intact") / "data", request.param)


@pytest.fixture
def data_dir(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "data")


def find_problems(data_dir, domain=DOMAIN):
    made = manifest.load_manifest(data_dir, domain.name)
    return verify.verify_domain(data_dir, domain, made)


def change_entry(data_dir, **changes):
    """Changes the manifest entry of the second training case."""
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    cases = list(made.cases)
    cases[1] = dataclasses.replace(cases[1], **changes)
    write_manifest(data_dir, dataclasses.replace(made, cases=tuple(cases)))


def test_intact_shards_have_no_problems(intact):
    assert find_problems(intact) == []
    assert find_problems(intact, OTHER) == []


def test_shard_truncated_within_a_record(data_dir):
    path = data_dir / DOMAIN.name / TRAIN
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - len(content) // 4])
    (problem,) = find_problems(data_dir)
    compression = manifest.load_manifest(data_dir, DOMAIN.name).compression
    received = {
        "none": "truncated in the record of c. `python -m",
        "gzip": "Received: a different size at the end of the file, which may be "
        "truncated",
    }
    assert problem.startswith(f"{path}: expected ")
    assert " bytes in 3 records" in problem
    assert received[compression] in problem


def test_shard_truncated_between_records(data_dir):
    compression = manifest.load_manifest(data_dir, DOMAIN.name).compression
    path = data_dir / DOMAIN.name / TRAIN
    kind = records.COMPRESSION_TYPES[compression]
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        for case in "ab":
            writer.write(records.encode(make_record(DOMAIN, case)))
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: expected ")
    assert " bytes in 3 records" in problem


def test_empty_shard(data_dir):
    path = data_dir / DOMAIN.name / TEST
    path.write_bytes(b"")
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: expected ")
    assert " bytes in 1 record" in problem


@pytest.mark.parametrize("position", [0.02, 0.3, 0.5, 0.8, 0.98])
def test_flipped_byte(data_dir, position):
    path = data_dir / DOMAIN.name / TRAIN
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0xFF
    path.write_bytes(content)
    problems = find_problems(data_dir)
    assert problems
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    assert all(". Received: " in problem for problem in problems)


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
    assert problem.startswith(
        f"{path}: d: expected a record of Task90_Organ. Received: one of Task91_Other"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checksum": "0" * 64}, "b: expected checksum 0000"),
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
    problem = find_problems(data_dir)[-1]
    assert problem.startswith(f"{data_dir / DOMAIN.name / TRAIN}: {message}")


def test_number_of_modalities_must_match_the_plan(data_dir):
    domain = dataclasses.replace(DOMAIN, modalities=("T2",))
    problems = find_problems(data_dir, domain)
    assert len(problems) == 5
    assert "manifest.json: expected shards of this plan" in problems[0]
    assert "d: expected shape (4, 5, 6, 1)" in problems[-1]


def write_test_record(data_dir, record):
    """Replaces a record, and updates its size and checksum in the manifest."""
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    path = data_dir / DOMAIN.name / TEST
    serialized = records.encode(record)
    kind = records.COMPRESSION_TYPES[made.compression]
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        writer.write(serialized)
    entry = dataclasses.replace(
        made.cases[-1],
        num_bytes=len(serialized),
        checksum=hashlib.sha256(serialized).hexdigest(),
    )
    cases = (*made.cases[:-1], entry)
    write_manifest(data_dir, dataclasses.replace(made, cases=cases))
    return path


def not_finite(record):
    image = record.image.copy()
    image[0, 0, 0, 0] = np.inf
    return dataclasses.replace(record, image=image)


def another_type(record):
    return dataclasses.replace(record, image=record.image.astype(np.float32))


def another_case(record):
    return dataclasses.replace(record, case="e")


def another_domain(record):
    return dataclasses.replace(record, domain=OTHER.name)


def label_beyond_the_classes(record):
    labels = record.labels.copy()
    labels[0, 0, 0] = 2
    return dataclasses.replace(record, labels=labels)


def another_count(record):
    return dataclasses.replace(record, label_counts=record.label_counts[::-1])


def coordinates_of_background(record):
    background = np.argwhere(record.labels == 0)[: len(record.coordinates)]
    return dataclasses.replace(record, coordinates=background.astype(np.int32))


def coordinates_outside(record):
    return dataclasses.replace(record, coordinates=record.coordinates + 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_finite, "expected finite voxels. Received: NaN or infinity"),
        (another_type, "expected voxels as float16. Received: float32"),
        (another_case, "expected a record of this case. Received: one of e"),
        (another_domain, "expected a record of Task90_Organ. Received: one of Task91"),
        (label_beyond_the_classes, "voxels per class. Received: ["),
        (another_count, "expected stored label counts ["),
        (coordinates_of_background, "expected sampled coordinates within each class"),
        (coordinates_outside, "expected sampled coordinates within each class"),
    ],
)
def test_record_that_only_matches_its_checksum(data_dir, change, message):
    path = write_test_record(data_dir, change(make_record(DOMAIN, "d")))
    (problem,) = find_problems(data_dir)
    assert problem.startswith(f"{path}: d: ")
    assert message in problem


def test_manifest_that_lacks_a_case(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    write_manifest(data_dir, dataclasses.replace(made, cases=made.cases[1:]))
    problems = find_problems(data_dir)
    path = manifest.manifest_path(data_dir, DOMAIN.name)
    assert problems[0] == (
        f"{path}: expected case a in train, as in the plan. Received: shards of "
        "a different plan, where it is absent"
    )
    shard = data_dir / DOMAIN.name / TRAIN
    assert problems[-1].startswith(f"{shard}: expected ")
    assert " bytes in 2 records" in problems[-1]


def test_skipped_cases_are_not_expected(data_dir):
    made = manifest.load_manifest(data_dir, DOMAIN.name)
    domain = dataclasses.replace(DOMAIN, train=("a", "b", "c", "e"))
    made = dataclasses.replace(made, skipped={"e": "labelsTr/e.nii.gz: …"})
    assert verify.verify_domain(data_dir, domain, made) == []


# Also run once in a new interpreter, which imports everything itself.
@pytest.mark.parametrize(
    "runner", ["run_warm", pytest.param("run_command", marks=pytest.mark.slow)]
)
def test_command_reports_what_it_verified(tmp_path, runner, request):
    run = request.getfixturevalue(runner)
    intact = write_data(tmp_path / "data", "gzip")
    done = run("data_prep.verify", data_dir=intact)
    assert done.stdout.splitlines() == [
        "Task90_Organ: 4 cases, as in the manifest",
        "Task91_Other: 4 cases, as in the manifest",
        f"8 cases of 2 domains verified in {intact}",
    ]
    if runner == "run_command":
        assert done.stderr == "", "neither a progress bar nor TensorFlow's start"


def test_command_reports_the_problems_and_a_remedy(data_dir, capsys):
    (data_dir / OTHER.name / TEST).unlink()
    (data_dir / OTHER.name / TRAIN).write_bytes(b"short")
    with pytest.raises(SystemExit) as ended:
        verify.main(VerifyConfig(data_dir=str(data_dir)))
    message = ended.value.code
    assert message.startswith("error: verification failed:\n")
    assert f"{data_dir / OTHER.name / TEST}: expected a shard" in message
    assert f"{data_dir / OTHER.name / TRAIN}: expected " in message
    assert "python -m data_prep.convert" in message
    printed = capsys.readouterr().out
    assert printed.startswith(f"{DOMAIN.name}: 4 cases, as in the manifest\n")
    assert "verified" not in printed


def test_command_checks_the_requested_domains(tmp_path, run_light):
    data_dir = write_data(tmp_path / "data", "none")
    for domain in (DOMAIN, OTHER):
        manifest.manifest_path(data_dir, domain.name).unlink()
    for flags, name in (({}, DOMAIN.name), ({"domains": OTHER.name}, OTHER.name)):
        done = run_light("data_prep.verify", data_dir=data_dir, status=1, **flags)
        assert f"{name}/manifest.json: expected a manifest" in done.stderr


def test_command_checks_existing_domains(data_dir, capsys):
    verify.main(VerifyConfig(data_dir=str(data_dir)))
    assert "not converted" not in capsys.readouterr().out
    shutil.rmtree(data_dir / DOMAIN.name)
    verify.main(VerifyConfig(data_dir=str(data_dir)))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"{OTHER.name}: 4 cases, as in the manifest",
        f"4 cases of 1 domain verified in {data_dir}",
        f"domains of the plan that are not converted: {DOMAIN.name}",
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
