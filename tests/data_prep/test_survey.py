import csv
import dataclasses
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from data_prep import survey_files, surveying
from data_prep.case_facts import Job, examine_case, stamp
from u2net_tf.command import InputError

SHAPE = (6, 10, 8)


def draw_image(seed):
    image = np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)
    image[:, 0] = 0
    return image


def make_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 2:6] = 1  # 36 voxels
    labels[5, 8, 6:8] = 1  # two more, apart
    return labels


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, write_nifti, write_dataset):
    """One folder with a case per fault, and one good domain of two modalities."""
    raw_dir = tmp_path_factory.mktemp("raw")
    folder = raw_dir / "Faulty"
    images, labels = folder / "imagesTr", folder / "labelsTr"

    def write(case, image=None, label=None, **keywords):
        seed = sum(map(ord, case))
        image = draw_image(seed) if image is None else image
        label = make_labels() if label is None else label
        write_nifti(images / f"{case}.nii.gz", image, **keywords)
        write_nifti(labels / f"{case}.nii.gz", label, **keywords)

    write("good", spacing_mm=(3, 1, 2))
    write("no_label")
    (labels / "no_label.nii.gz").unlink()
    write("no_image")
    (images / "no_image.nii.gz").unlink()
    write("other_shape", label=make_labels()[:-1])
    write("other_grid")
    write_nifti(
        labels / "other_grid.nii.gz", make_labels(), affine=np.diag([2, 2, 2, 1])
    )
    unknown = make_labels()
    unknown[0, 0, :3] = 254
    write("unknown_value", label=unknown)
    nan = draw_image(1)
    nan[2, 2, 2], nan[3, 3, 3] = np.nan, np.inf
    write("nan", image=nan)
    write("empty", label=np.zeros(SHAPE, np.uint8))
    write("fractions", label=make_labels() * np.float32(0.5))
    write("cut_short")
    whole = (images / "cut_short.nii.gz").read_bytes()
    (images / "cut_short.nii.gz").write_bytes(whole[: len(whole) // 2])
    write("two_modalities", image=np.stack([draw_image(2), draw_image(3)]))
    write_nifti(labels / "two_modalities.nii.gz", make_labels())
    write("zero", image=np.zeros(SHAPE, np.float32))
    write("constant", image=np.full(SHAPE, 7, np.float32))
    write("flat", image=draw_image(4)[0], label=make_labels()[0])
    write("twice")
    write("the_copy", image=draw_image(sum(map(ord, "good"))), spacing_mm=(3, 1, 2))
    contradictory = nib.Nifti1Image(draw_image(5).T, np.diag([1, 1, 5, 1]))
    contradictory.header.set_zooms((1.64, 1.64, 5))
    contradictory.header["sform_code"] = 1
    nib.save(contradictory, images / "sform.nii.gz")
    nib.save(
        nib.Nifti1Image(make_labels().T, contradictory.affine), labels / "sform.nii.gz"
    )
    names = [path.name[:-7] for path in sorted(labels.iterdir())] + ["no_label"]
    write_dataset(folder, [*names, "twice"], labels=("background", "organ", "never"))

    two = write_dataset(raw_dir / "Two", ["a", "b"], modalities=("T2", "ADC"))
    for case, depth in (("a", 6), ("b", 4)):
        image = np.stack([draw_image(6)[:depth], draw_image(7)[:depth] + depth])
        write_nifti(two / "imagesTr" / f"{case}.nii.gz", image, (1, 1, 1))
        label = make_labels()[:depth]
        write_nifti(two / "labelsTr" / f"{case}.nii.gz", label, (1, 1, 1))
    return raw_dir


@pytest.fixture(scope="module")
def surveyed(faulty, tmp_path_factory, run_command):
    output = tmp_path_factory.mktemp("work") / "made" / "survey"
    done = run_command("data_prep.survey", raw_dir=faulty, output_dir=output)
    return output, done


@pytest.fixture(scope="module")
def cases(surveyed):
    domains = survey_files.load_survey(surveyed[0])
    return {case.case: case for case in domains[0].cases}


def test_finished_survey_leaves_two_files_and_says_so(surveyed):
    output, done = surveyed
    assert sorted(p.name for p in output.iterdir()) == ["survey.csv", "survey.json"]
    last = done.stdout.splitlines()[-1]
    assert str(output / "survey.csv") in last
    assert str(output / "survey.json") in last
    assert "%" not in done.stderr, "the progress bar is for terminals"


def test_table_has_the_columns_of_the_paper(surveyed):
    lines = surveyed[1].stdout.splitlines()
    for title in ("domain", "modality", "cases", "shape", "spacing"):
        assert title in lines[0]
    row = next(line for line in lines if line.startswith("Two"))
    assert "T2, ADC" in row
    assert "4–6 × 10 × 8" in row
    assert "1 × 1 × 1" in row
    assert len({line.index("×") for line in lines[2:4]}) <= 2


def test_measurements_of_a_good_case(cases):
    good = cases["good"]
    image = draw_image(sum(map(ord, "good")))
    assert good.faults == ()
    assert good.warnings == ()
    assert good.shape == SHAPE
    assert good.spacing_mm == (3, 1, 2)
    assert good.orientation == "RAS"
    expected = np.percentile(image, [0, 2, 50, 98, 100])
    np.testing.assert_allclose(good.percentiles[0], expected, rtol=1e-6)
    assert good.nonzero_share == pytest.approx(0.9)
    assert good.box_start == (0, 1, 0)
    assert good.box_shape == (6, 9, 8)
    assert good.box_share == pytest.approx(0.9)
    assert good.label_voxels == {"0": 480 - 38, "1": 38}
    assert good.component_shares["1"] == pytest.approx((36 / 38, 1))
    assert good.component_shares["foreground"] == good.component_shares["1"]


@pytest.mark.parametrize(
    ("case", "kind", "part", "text"),
    [
        ("no_label", "label", "labelsTr", "expected a file, found none"),
        ("no_image", "image", "imagesTr", "expected a file, found none"),
        ("other_shape", "geometry", "labelsTr", "found (8, 10, 5)"),
        ("other_grid", "geometry", "labelsTr", "mm elsewhere"),
        ("unknown_value", "unknown label", "labelsTr", "254 in 3 voxels"),
        ("nan", "image", "imagesTr", "found 2 that are NaN or infinite"),
        ("empty", "empty label", "labelsTr", "empty label map"),
        ("fractions", "label", "labelsTr", "whole numbers"),
        ("cut_short", "image", "imagesTr", "cannot be read"),
        ("two_modalities", "image", "imagesTr", "expected 1 modalities, found 2"),
        ("zero", "image", "imagesTr", "all zero"),
        ("constant", "image", "imagesTr", "constant 7"),
        ("flat", "image", "imagesTr", "expected a 3-D volume"),
        ("twice", "same name", "dataset.json", "more than once"),
        ("the_copy", "same image", "imagesTr", "found that of case 'good'"),
    ],
)
def test_fault_is_reported_by_file(surveyed, case, kind, part, text):
    output, done = surveyed
    content = json.loads((output / "survey.json").read_text())["domains"][0]
    row = next(row for row in content["cases"] if row["case"] == case)
    fault = next(fault for fault in row["faults"] if fault["kind"] == kind)
    assert part in fault["file"]
    assert text in fault["text"]
    printed = [line for line in done.stdout.splitlines() if line.startswith("fault")]
    assert any(fault["file"] in line and text in line for line in printed)
    assert any(fault["file"] in line and text in line for line in content["faults"])
    with (output / "survey.csv").open() as file:
        columns = next(r for r in csv.DictReader(file) if r["case"] == case)
    assert text in columns["faults"]


def test_faults_do_not_hide_what_can_be_measured(cases):
    assert cases["no_label"].shape == SHAPE
    assert cases["cut_short"].shape == ()
    assert cases["cut_short"].label_voxels["1"] == 38
    assert np.isfinite(cases["nan"].percentiles).all()


def test_contradictory_header_is_a_warning(cases, surveyed):
    assert cases["sform"].faults == ()
    (warning,) = cases["sform"].warnings
    assert "sform.nii.gz" in warning
    assert "1.64 × 1.64 × 5 mm in pixdim and 1 × 1 × 5 mm in the affine" in warning
    assert cases["sform"].spacing_mm == pytest.approx((5, 1.64, 1.64))
    assert f"warning: {warning}" in surveyed[1].stdout


def test_label_that_no_case_holds_is_a_warning(surveyed):
    assert "no case holds label 2 (never)" in surveyed[1].stdout


def test_csv_has_a_row_per_case_and_a_column_per_measurement(surveyed):
    with (surveyed[0] / "survey.csv").open() as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row["domain"] == "Two" and row["case"] == "b")
    assert [row[f"shape_{axis}"] for axis in "zyx"] == ["4", "10", "8"]
    image = draw_image(7)[:4] + 4
    assert float(row["modality1_p98"]) == pytest.approx(np.percentile(image, 98), 1e-5)
    assert row["label1_voxels"] == "36"
    assert row["label254_voxels"] == ""
    good = next(row for row in rows if row["case"] == "good")
    assert good["modality1_p98"] == ""
    assert good["orientation"] == "RAS"
    assert good["nonzero_share"] == "0.9000"
    assert good["spacing_z_mm"] == "3.0"


def test_survey_json_round_trip(surveyed):
    text = (surveyed[0] / "survey.json").read_text()
    assert survey_files.to_json(survey_files.load_survey(surveyed[0])) == text


def test_flags_choose_domains_spacing_and_workers(faulty, tmp_path, run_command):
    run_command(
        "data_prep.survey",
        raw_dir=faulty,
        output_dir=tmp_path,
        domains="Faulty",
        spacing_source="affine",
        num_workers=1,
    )
    (domain,) = survey_files.load_survey(tmp_path)
    assert domain.name == "Faulty"
    assert domain.spacing_source == "affine"
    sform = next(case for case in domain.cases if case.case == "sform")
    assert sform.spacing_mm == (5, 1, 1)
    assert "took affine" in sform.warnings[0]


def test_number_of_workers_is_the_number_of_processes(monkeypatch, tmp_path, faulty):
    asked = []

    class Pool:
        def __init__(self, max_workers, **keywords):
            asked.append(max_workers)
            raise InputError("far enough")

    monkeypatch.setattr(surveying.concurrent.futures, "ProcessPoolExecutor", Pool)
    datasets = surveying.find_domains(faulty, ["Faulty"])
    with pytest.raises(InputError, match="far enough"):
        surveying.survey(
            datasets,
            partial=tmp_path / "partial",
            spacing_source="pixdim",
            num_workers=3,
        )
    assert asked == [3]


@pytest.fixture
def interrupted(faulty, tmp_path):
    """A folder in which a run stopped after two cases and half a third."""
    raw_dir = tmp_path / "raw"
    shutil.copytree(faulty / "Two", raw_dir / "Two")
    (dataset,) = surveying.find_domains(raw_dir, [])
    rows = []
    for case in dataset.cases:
        paths = str(case.image_path), str(case.label_path)
        job = Job("Two", case.name, *paths, 2, (0, 1), "pixdim")
        facts = dataclasses.replace(examine_case(job), checksum=f"kept {case.name}")
        row = {"stamp": stamp(job), "facts": dataclasses.asdict(facts)}
        rows.append(json.dumps(row))
    (tmp_path / ".survey.partial.jsonl").write_text("\n".join(rows) + '\n{"stam')
    return tmp_path


def read_checksums(output):
    (domain,) = survey_files.load_survey(output)
    return [case.checksum[:6] for case in domain.cases]


def test_interrupted_survey_goes_on(interrupted, run_command):
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    done = run_command("data_prep.survey", **flags)
    assert "going on with 0 of 2 cases" in done.stdout
    assert read_checksums(interrupted) == ["kept a", "kept b"]
    assert not (interrupted / ".survey.partial.jsonl").exists()


def test_changed_file_is_examined_again(interrupted, run_command):
    os.utime(interrupted / "raw" / "Two" / "labelsTr" / "a.nii.gz", (1, 1))
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    run_command("data_prep.survey", **flags)
    first, second = read_checksums(interrupted)
    assert first != "kept a"
    assert second == "kept b"


def test_other_spacing_source_is_examined_again(interrupted, run_command):
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    run_command("data_prep.survey", spacing_source="affine", **flags)
    assert "kept a" not in read_checksums(interrupted)


def test_finished_cases_outlive_an_interruption(faulty, tmp_path, monkeypatch):
    examined = []

    def examine(jobs, num_workers):
        for job in jobs:
            if examined:
                raise KeyboardInterrupt
            examined.append(job.case)
            yield job, examine_case(job)

    datasets = surveying.find_domains(faulty, ["Two"])
    settings = {"spacing_source": "pixdim", "num_workers": 1}
    partial = tmp_path / "partial"
    real = surveying._examine
    monkeypatch.setattr(surveying, "_examine", examine)
    with pytest.raises(KeyboardInterrupt):
        surveying.survey(datasets, partial=partial, **settings)
    left = []
    monkeypatch.setattr(
        surveying, "_examine", lambda jobs, n: (left.extend(jobs), real(jobs, n))[1]
    )
    (domain,) = surveying.survey(datasets, partial=partial, **settings)
    assert examined == ["a"]
    assert [job.case for job in left] == ["b"]
    assert [case.case for case in domain.cases] == ["a", "b"]


def break_json(folder):
    (folder / "dataset.json").write_text('{"modality": ')


@pytest.mark.parametrize(
    ("break_it", "domains", "message"),
    [
        (break_json, "A,B", "dataset.json: expected JSON"),
        (break_json, "", "dataset.json: expected JSON"),
        (lambda folder: (folder / "dataset.json").unlink(), "A,B", "found none"),
        (lambda folder: (folder / "dataset.json").unlink(), "", "beside imagesTr"),
        (shutil.rmtree, "A,B", "--domains: expected a folder"),
        (lambda folder: None, "A,A", "--domains: expected distinct names"),
    ],
)
def test_bad_folder_is_an_error_before_anything_is_written(
    tmp_path, run_command, write_dataset, break_it, domains, message
):
    for name in "AB":
        write_dataset(tmp_path / "raw" / name, ["x"])
        (tmp_path / "raw" / name / "imagesTr").mkdir()
    break_it(tmp_path / "raw" / "B")
    flags = {"raw_dir": tmp_path / "raw", "output_dir": tmp_path / "out"}
    done = run_command("data_prep.survey", status=1, domains=domains, **flags)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_raw_dir_may_be_one_domain(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "A", ["x"])
    assert [d.name for d in surveying.find_domains(folder, [])] == ["A"]
    assert [d.name for d in surveying.find_domains(folder, ["A"])] == ["A"]
    with pytest.raises(InputError, match="--domains: expected A"):
        surveying.find_domains(folder, ["B"])


def test_missing_flags_are_named(tmp_path, run_command):
    done = run_command("data_prep.survey", status=1, output_dir=tmp_path)
    assert "--raw_dir: expected a folder, found none" in done.stderr
    done = run_command("data_prep.survey", status=1, raw_dir=tmp_path)
    assert "--output_dir: expected a folder, found none" in done.stderr


def test_output_that_is_a_file_is_an_error(tmp_path, faulty, run_command):
    (tmp_path / "out").write_text("")
    flags = {"raw_dir": faulty, "output_dir": tmp_path / "out", "domains": "Two"}
    done = run_command("data_prep.survey", status=1, **flags)
    assert "--output_dir: expected a folder" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found no such file"),
        ("{", "Received"),
        ("[]", "Received"),
        ('{"format": 9}', "expected format 1, found 9"),
        ('{"format": 1, "domains": [{"name": "A"}]}', "Received: KeyError"),
    ],
)
def test_what_is_no_survey_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "survey.json").write_text(text)
    with pytest.raises(InputError, match="survey.json") as error:
        survey_files.load_survey(tmp_path)
    assert message in str(error.value)
