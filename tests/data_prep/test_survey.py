import csv
import dataclasses
import json

import numpy as np
import pytest
from invented_scans import SHAPE, draw_image, make_labels
from invented_surveys import make_case, make_domain, make_faulty

from data_prep.survey import survey_file
from u2net_tf.errors import InputError


@pytest.fixture(scope="module")
def surveyed(faulty, tmp_path_factory, run_command):
    output = tmp_path_factory.mktemp("work") / "made" / "survey"
    done = run_command("data_prep.survey", raw_dir=faulty, output_dir=output)
    return output, done


@pytest.fixture(scope="module")
def cases(surveyed):
    domains = survey_file.load_survey(surveyed[0])
    return {case.case: case for case in domains[0].cases}


def test_survey_writes_and_reports_two_files(surveyed):
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


def test_table_has_no_exponents():
    sizes = {"shape": (20, 1024, 1031), "spacing_mm": (3.0, 0.70312, 1200.0)}
    domain = dataclasses.replace(
        make_domain("A"), cases=(make_case("A", "x", **sizes),)
    )
    table = survey_file.format_domains([domain])
    assert " 20 × 1024 × 1031 " in table
    assert " 3 × 0.703 × 1200 " in table


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
    foreground = image[make_labels() == 1].astype(float)
    (found,) = good.foreground_intensities
    expected = [*np.percentile(foreground, [0.5, 99.5])]
    expected += [foreground.mean(), foreground.std()]
    assert [found.low, found.high, found.mean, found.std] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("case", "kind", "part", "text"),
    [
        ("no_label", "label", "labelsTr", "expected a file. Received: no such"),
        ("no_image", "image", "imagesTr", "expected a file. Received: no such"),
        ("other_shape", "geometry", "labelsTr", "Received: (8, 10, 5)"),
        ("other_grid", "geometry", "labelsTr", "mm away"),
        ("unknown_value", "unknown label", "labelsTr", "254 in 3 voxels"),
        ("nan", "image", "imagesTr", "Received: 2 NaN or infinite voxels"),
        ("empty", "empty label", "labelsTr", "empty label map"),
        ("fractions", "label", "labelsTr", "integers"),
        ("cut_short", "image", "imagesTr", "expected a readable NIfTI file"),
        ("two_modalities", "image", "imagesTr", "expected 1 modality. Received: 2"),
        ("zero", "image", "imagesTr", "Received: zeros only"),
        ("constant", "image", "imagesTr", "constant 7"),
        ("flat", "image", "imagesTr", "expected a 3-D volume"),
        ("twice", "same name", "dataset.json", "several entries"),
        ("the_copy", "same image", "imagesTr", "Received: the image of case 'good'"),
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
    with (output / "survey.csv").open() as file:
        columns = next(r for r in csv.DictReader(file) if r["case"] == case)
    assert text in columns["faults"]


def test_faulty_cases_are_measured_as_far_as_possible(cases):
    assert cases["no_label"].shape == SHAPE
    assert cases["cut_short"].shape == ()
    assert cases["cut_short"].label_voxels["1"] == 38
    assert np.isfinite(cases["nan"].percentiles).all()
    assert len(cases["nan"].foreground_intensities) == 1
    assert cases["empty"].foreground_intensities == ()
    for name in ("no_label", "no_image", "other_shape"):
        assert cases[name].foreground_intensities is None


def test_contradictory_header_is_a_warning(cases, surveyed):
    assert cases["sform"].faults == ()
    (warning,) = cases["sform"].warnings
    assert "sform.nii.gz" in warning
    assert "1.64 × 1.64 × 5 mm in pixdim and 1 × 1 × 5 mm in the affine" in warning
    assert cases["sform"].spacing_mm == pytest.approx((5, 1.64, 1.64))
    assert f"warning: {warning}" in surveyed[1].stdout


def test_label_without_voxels_is_a_warning(surveyed):
    assert "no case contains label 2 (never)" in surveyed[1].stdout


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
    assert survey_file.to_json(survey_file.load_survey(surveyed[0])) == text


def test_flags_choose_domains_spacing_and_workers(faulty, tmp_path, run_light):
    run_light(
        "data_prep.survey",
        raw_dir=faulty,
        output_dir=tmp_path,
        domains="Faulty",
        spacing_source="affine",
        num_workers=1,
    )
    (domain,) = survey_file.load_survey(tmp_path)
    assert domain.name == "Faulty"
    assert domain.spacing_source == "affine"
    sform = next(case for case in domain.cases if case.case == "sform")
    assert sform.spacing_mm == (5, 1, 1)
    assert "using affine" in sform.warnings[0]


def test_missing_flags_are_reported(tmp_path, run_light):
    done = run_light("data_prep.survey", status=1, output_dir=tmp_path)
    assert "--raw_dir: expected a value. Received: none" in done.stderr
    done = run_light("data_prep.survey", status=1, raw_dir=tmp_path)
    assert "--output_dir: expected a value. Received: none" in done.stderr


def test_output_that_is_a_file_is_an_error(tmp_path, faulty, run_light):
    (tmp_path / "out").write_text("")
    flags = {"raw_dir": faulty, "output_dir": tmp_path / "out", "domains": "Two"}
    done = run_light("data_prep.survey", status=1, **flags)
    assert "--output_dir: expected a folder" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a survey written by `python -m data_prep.survey`"),
        ("{", "Received"),
        ("[]", "Received"),
        ('{"format": 9}', "format: expected an integer from 1 to 6"),
        ('{"format": 1, "domains": [{"name": "A"}]}', "[0].folder: expected a val"),
    ],
)
def test_files_that_are_not_surveys_are_reported(tmp_path, text, message):
    if text is not None:
        (tmp_path / "survey.json").write_text(text)
    with pytest.raises(InputError, match="survey.json") as error:
        survey_file.load_survey(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [20, 100]}, "shape, spacing_mm and a box in the vol"),
        ({"spacing_mm": []}, "shape, spacing_mm and a box in the vol"),
        ({"box_start": [0, 50, 0]}, "shape, spacing_mm and a box in the vol"),
        ({"box_start": [], "box_shape": []}, "shape, spacing_mm and a box in the vol"),
        ({"percentiles": [[1, 2, 3, 4]]}, "percentiles: expected 5 numbers for each"),
        ({"percentiles": [[]]}, "percentiles: expected 5 numbers for each"),
        ({"percentiles": [[1, 2, 3, 4, 5]] * 2}, "5 numbers for each of 1 modality"),
        ({"domain": "Other"}, "domain: expected Task99_Knee. Received: Other"),
        ({"case": "patient0_frame1"}, "distinct names. .*: patient0_frame1"),
    ],
)
def test_an_inconsistent_survey_is_reported(tmp_path, changes, message):
    content = json.loads(survey_file.to_json([make_domain()]))
    content["domains"][0]["cases"][0].update(changes)
    (tmp_path / "survey.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"json: domains\[0\].cases.*{message}"):
        survey_file.load_survey(tmp_path)


def test_unreadable_cases_may_lack_measurements(tmp_path):
    facts, name = make_faulty("image")
    empty = {"shape": (), "spacing_mm": (), "box_start": (), "box_shape": ()}
    cases = [
        dataclasses.replace(case, **empty) if case.case == name else case
        for case in facts.cases
    ]
    facts = dataclasses.replace(facts, cases=tuple(cases))
    (tmp_path / "survey.json").write_text(survey_file.to_json([facts]))
    assert survey_file.load_survey(tmp_path) == (facts,)


def test_an_older_survey_without_resampled_modalities(tmp_path):
    content = json.loads(survey_file.to_json([make_domain()]))
    assert content["domains"][0].pop("resample_modalities") is False
    (tmp_path / "survey.json").write_text(json.dumps({**content, "format": 3}))
    assert survey_file.load_survey(tmp_path) == (make_domain(),)


def test_duplicate_domains_in_a_survey_are_refused(tmp_path):
    content = json.loads(survey_file.to_json([make_domain()]))
    content["domains"] *= 2
    (tmp_path / "survey.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="domains: expected distinct names"):
        survey_file.load_survey(tmp_path)
