import concurrent.futures
import dataclasses
import json
import os
import shutil

import pytest
from absl import logging
from recorded_progress import RecordedProgress

from data_prep.survey import survey_domains, survey_file
from data_prep.survey.examine_case import SurveyJob, examine_case
from data_prep.survey.survey_domains import EXAMINED_CASE, ExaminedCase
from u2net_tf.errors import InputError


def test_number_of_workers_is_the_number_of_processes(monkeypatch, tmp_path, faulty):
    asked = []

    def worker_processes(num_workers, **options):
        asked.append((num_workers, options))
        raise InputError("here", expected="this", received="far enough")

    monkeypatch.setattr(survey_domains.parallel, "worker_processes", worker_processes)
    datasets = survey_domains.find_domains(faulty, ["Faulty"])
    with pytest.raises(InputError, match="far enough"):
        survey_domains.survey(
            datasets, log=tmp_path / "log", spacing_source="pixdim", num_workers=3
        )
    # The command lists warnings itself.
    options = {"num_threads": 1, "verbosity": logging.ERROR, "where": ""}
    assert asked == [(3, options)]


@pytest.fixture
def interrupted(faulty, tmp_path):
    """A folder in which a run stopped after two cases and half a third."""
    raw_dir = tmp_path / "raw"
    shutil.copytree(faulty / "Two", raw_dir / "Two")
    (dataset,) = survey_domains.find_domains(raw_dir, [])
    rows = []
    for case in dataset.cases:
        paths = (str(case.image_path),), str(case.label_path)
        job = SurveyJob("Two", case.name, *paths, 2, (0, 1), "pixdim")
        facts = dataclasses.replace(examine_case(job), checksum=f"kept {case.name}")
        row = EXAMINED_CASE.to_dict(ExaminedCase(job.key, facts))
        rows.append(json.dumps(row))
    (tmp_path / ".survey.partial.jsonl").write_text("\n".join(rows) + '\n{"form')
    return tmp_path


def read_checksums(output):
    (domain,) = survey_file.load_survey(output)
    return [case.checksum[:6] for case in domain.cases]


def test_interrupted_survey_goes_on(interrupted, run_light):
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    done = run_light("data_prep.survey", **flags)
    assert "resuming with 0 of 2 cases" in done.stdout
    assert read_checksums(interrupted) == ["kept a", "kept b"]
    assert not (interrupted / ".survey.partial.jsonl").exists()


def test_changed_file_is_examined_again(interrupted, run_light):
    os.utime(interrupted / "raw" / "Two" / "labelsTr" / "a.nii.gz", (1, 1))
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    run_light("data_prep.survey", **flags)
    first, second = read_checksums(interrupted)
    assert first != "kept a"
    assert second == "kept b"


def test_other_spacing_source_is_examined_again(interrupted, run_light):
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    run_light("data_prep.survey", spacing_source="affine", **flags)
    assert "kept a" not in read_checksums(interrupted)


class StopsAfterOne(concurrent.futures.Executor):
    """Examines the first case; what comes then is interrupted."""

    def __init__(self):
        self.examined = []

    def submit(self, function, job):
        future = concurrent.futures.Future()
        if self.examined:
            future.set_exception(KeyboardInterrupt())
        else:
            self.examined.append(job.case)
            future.set_result(function(job))
        return future


def test_finished_cases_outlive_an_interruption(faulty, tmp_path):
    datasets = survey_domains.find_domains(faulty, ["Two"])
    settings = {"spacing_source": "pixdim", "num_workers": 1, "log": tmp_path / "log"}
    first, second = StopsAfterOne(), StopsAfterOne()
    with pytest.raises(KeyboardInterrupt):
        survey_domains.survey(datasets, executor=first, **settings)
    assert first.examined == ["a"]
    found = survey_domains.survey(datasets, executor=second, **settings)
    assert second.examined == ["b"]
    assert [case.case for case in found[0].cases] == ["a", "b"]


def break_json(folder):
    (folder / "dataset.json").write_text('{"modality": ')


@pytest.mark.parametrize(
    ("break_it", "domains", "message"),
    [
        (break_json, "A,B", "dataset.json: expected JSON"),
        (break_json, "", "dataset.json: expected JSON"),
        (
            lambda folder: (folder / "dataset.json").unlink(),
            "A,B",
            "Received: no such file",
        ),
        (lambda folder: (folder / "dataset.json").unlink(), "", "beside imagesTr"),
        (shutil.rmtree, "A,B", "--domains: expected a folder"),
        (lambda folder: None, "A,A", "--domains: expected distinct names"),
    ],
)
def test_bad_folder_is_an_error_before_anything_is_written(
    tmp_path, run_light, write_dataset, break_it, domains, message
):
    for name in "AB":
        write_dataset(tmp_path / "raw" / name, ["x"])
        (tmp_path / "raw" / name / "imagesTr").mkdir()
    break_it(tmp_path / "raw" / "B")
    flags = {"raw_dir": tmp_path / "raw", "output_dir": tmp_path / "out"}
    done = run_light("data_prep.survey", status=1, domains=domains, **flags)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_raw_dir_may_be_one_domain(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "A", ["x"])
    assert [d.name for d in survey_domains.find_domains(folder, [])] == ["A"]
    assert [d.name for d in survey_domains.find_domains(folder, ["A"])] == ["A"]
    with pytest.raises(InputError, match="`domains`: expected A, the only"):
        survey_domains.find_domains(folder, ["B"])


def test_progress_counts_all_cases_and_a_resumed_run_says_so(interrupted):
    progress, resumed = RecordedProgress(), []
    (dataset,) = survey_domains.find_domains(interrupted / "raw", [])
    os.utime(dataset.case("a").label_path, (1, 1))
    survey_domains.survey(
        [dataset],
        log=interrupted / ".survey.partial.jsonl",
        spacing_source="pixdim",
        num_workers=1,
        progress=progress,
        on_resumed=lambda *counts: resumed.append(counts),
    )
    assert resumed == [(interrupted / ".survey.partial.jsonl", 1, 2)]
    assert progress.counts == [("survey", "case", 2)]


def test_what_dataset_json_leaves_open_is_a_warning(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "A", ["x"], labels=("background", "a", "a"))
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
        for name in ("x", "y"):
            (folder / part / f"{name}.nii.gz").write_bytes(b"no scan")
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "numTraining": 2}))
    facts = survey_domains.survey(
        survey_domains.find_domains(folder, []),
        log=tmp_path / "log",
        spacing_source="pixdim",
        num_workers=1,
        executor=StopsAfterOne(),
    )
    warnings = [text.removeprefix(f"{path}: ") for text in facts[0].warnings]
    assert warnings[:3] == [
        "'numTraining' is 2, read 1 case",
        f"2 volumes of no case: {folder}/imagesTr/y.nii.gz, {folder}/labelsTr/y.nii.gz",
        "labels: expected distinct names. Received: several times: a",
    ]
