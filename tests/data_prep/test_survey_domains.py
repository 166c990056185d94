import concurrent.futures
import csv
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from absl import logging
from in_process import InProcess
from invented_scans import draw_image, make_labels
from recorded_progress import RecordedProgress

from data_prep.config import SurveyConfig
from data_prep.plan.fitting_cases import is_usable
from data_prep.survey import compare_cases, survey_domains, survey_file
from data_prep.survey import examine_case as examine_case_module
from data_prep.survey.examine_case import (
    CaseFacts,
    SurveyJob,
    examine_case,
)
from data_prep.survey.survey_domains import EXAMINED_CASE, ExaminedCase
from u2net_tf.errors import InputError
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.volumes.msd import Dataset

# x from right to left, 20 voxels.
FLIPPED = np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_number_of_workers_is_the_number_of_processes(monkeypatch, tmp_path, faulty):
    requested = []

    def worker_processes(num_workers, **options):
        requested.append((num_workers, options))
        raise InputError("here", expected="this", received="far enough")

    monkeypatch.setattr(survey_domains.parallel, "worker_processes", worker_processes)
    datasets = survey_domains.find_domains(faulty, ["Faulty"])
    with pytest.raises(InputError, match="far enough"):
        survey_domains.survey(
            datasets, log=tmp_path / "log", spacing_source="pixdim", num_workers=3
        )
    # The command prints warnings itself.
    options = {"num_threads": 1, "verbosity": logging.ERROR, "where": ""}
    assert requested == [(3, options)]


@pytest.fixture
def interrupted(faulty, tmp_path):
    """A folder in which a run was interrupted while writing the third case."""
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


def test_interrupted_survey_is_resumed(interrupted, run_light):
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


def test_a_different_spacing_source_is_examined_again(interrupted, run_light):
    flags = {"raw_dir": interrupted / "raw", "output_dir": interrupted}
    run_light("data_prep.survey", spacing_source="affine", **flags)
    assert "kept a" not in read_checksums(interrupted)


def test_cases_of_a_version_with_fewer_checks_are_examined_again(
    monkeypatch,
):
    job = SurveyJob("Two", "a", ("a.nii.gz",), "a.nii.gz", 2, (0, 1), "pixdim")
    before = job.key
    monkeypatch.setattr(examine_case_module, "CHECKS_VERSION", 0)
    assert job.key != before


def test_a_modality_without_finite_voxels_excludes_its_case(
    faulty, tmp_path, run_light, write_nifti
):
    shutil.copytree(faulty / "Two", tmp_path / "raw" / "Two")
    image = np.stack([np.full_like(draw_image(6), np.nan), draw_image(7)])
    write_nifti(tmp_path / "raw" / "Two" / "imagesTr" / "a.nii.gz", image)
    run_light("data_prep.survey", raw_dir=tmp_path / "raw", output_dir=tmp_path)
    (domain,) = survey_file.load_survey(tmp_path)
    first, second = domain.cases
    assert "480 NaN or infinite voxels" in first.faults[0].text
    assert [len(row) for row in first.percentiles] == [0, 5]
    assert [len(row) for row in second.percentiles] == [5, 5]
    with (tmp_path / "survey.csv").open() as file:
        row = next(csv.DictReader(file))
    assert row["modality0_p50"] == ""
    assert float(row["modality1_p50"]) == pytest.approx(first.percentiles[1][2])
    output = tmp_path / "plan.json"
    flags = {"survey": tmp_path, "output": output, "validation_fraction": 0}
    run_light("data_prep.plan", exclude_faulty=True, test_fraction=0, **flags)
    assert load_plan(output).domains[0].train == ("b",)


class StopsAfterOne(concurrent.futures.Executor):
    """Examines the first case and is then interrupted."""

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


def test_finished_cases_survive_an_interruption(faulty, tmp_path):
    datasets = survey_domains.find_domains(faulty, ["Two"])
    settings = {"spacing_source": "pixdim", "num_workers": 1, "log": tmp_path / "log"}
    first, second = StopsAfterOne(), StopsAfterOne()
    with pytest.raises(KeyboardInterrupt):
        survey_domains.survey(datasets, executor=first, **settings)
    assert first.examined == ["a"]
    found = survey_domains.survey(datasets, executor=second, **settings)
    assert second.examined == ["b"]
    assert [case.case for case in found[0].cases] == ["a", "b"]


@pytest.fixture
def odd(tmp_path, write_nifti, write_dataset):
    """A domain in which each scan has a different peculiarity."""
    folder = write_dataset(tmp_path / "raw" / "Odd", ["um", "none", "sparse", "scaled"])
    for name in ("um", "none", "sparse", "scaled"):
        image, labels = draw_image(len(name)), make_labels() * np.float32(1)
        if name == "sparse":
            image[...] = 0
            image[0, 0, 0], image[2, 3, 4:7], image[-1, -1, -1] = 1, 500, 1
        if name == "scaled":
            labels *= np.float32(1.00002)
        spacing_mm = (3000, 1000, 1000) if name == "um" else (3, 1, 1)
        for part, array in (("imagesTr", image), ("labelsTr", labels)):
            path = write_nifti(folder / part / f"{name}.nii.gz", array, spacing_mm)
            scan = nib.load(path)
            scan.header.set_xyzt_units({"um": "micron", "none": 0}.get(name, "mm"))
            nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), None, scan.header), path)
    return folder


def survey_one(folder, tmp_path, **settings):
    (facts,) = survey_domains.survey(
        survey_domains.find_domains(folder, []),
        log=tmp_path / "log",
        spacing_source="pixdim",
        num_workers=1,
        executor=InProcess(),
        **settings,
    )
    return facts, {case.case: case for case in facts.cases}


def test_units_are_converted_and_reported_once(odd, tmp_path):
    facts, cases = survey_one(odd, tmp_path)
    assert {case.spacing_mm for case in cases.values()} == {(3, 1, 1)}
    assert cases["um"].length_unit == "µm"
    assert facts.warnings[-2:] == (
        f"{odd}: 1 of 4 images without a unit of length; assuming mm",
        f"{odd}: 1 of 4 images with voxel sizes in µm, converted to mm",
    )


def test_more_labels_than_a_plan_has_classes_are_a_warning(odd, tmp_path):
    words = "labels: expected 2 to 256 classes, including the background. Received: 257"
    for count in (256, 257):
        content = json.loads((odd / "dataset.json").read_text())
        content["labels"] = {str(value): f"c{value}" for value in range(count)}
        (odd / "dataset.json").write_text(json.dumps(content))
        facts, _ = survey_one(odd, tmp_path)
        assert any(words in text for text in facts.warnings) == (count == 257)


def test_image_that_cannot_be_converted_is_a_fault(odd, tmp_path):
    _, cases = survey_one(odd, tmp_path)
    (fault,) = cases["sparse"].faults
    assert fault.kind == "contrast"
    assert "sparse.nii.gz: modality '0': " in str(fault)
    assert "between percentiles 2 and 98. Received: the constant 0" in fault.text
    for clip_percentiles, usable in (((2.0, 98.0), False), ((0.0, 100.0), True)):
        settings = {"unknown_labels": "fail", "clip_percentiles": clip_percentiles}
        assert is_usable(cases["sparse"], **settings) == usable


def test_foreground_outside_the_crop_is_reported(tmp_path, write_nifti):
    """The crop is x 0 to 6: the non-zero voxels and a margin of five."""
    image, labels = np.zeros((2, 6, 10, 20), np.float32)
    image[..., :2] = draw_image(1)[..., :2] + 1
    labels[0, 0, 4:9] = 1
    labels[0, 0, 19] = 7  # not a known value
    paths = [tmp_path / "image.nii", tmp_path / "labels.nii"]
    write_nifti(paths[0], image)
    job = SurveyJob("A", "a", (str(paths[0]),), str(paths[1]), 1, (0, 1), "pixdim")
    # On disk in another orientation than the image.
    write_nifti(paths[1], labels[..., ::-1], affine=FLIPPED)
    facts = examine_case(job)
    assert [fault.kind for fault in facts.faults] == ["unknown label"]
    assert facts.warnings == (
        f"{paths[1]}: foreground with 2 of 5 voxels outside the bounding box of the "
        "non-zero voxels of the image, which are cropped",
    )
    labels[0, 0, :7] = 0
    write_nifti(paths[1], np.where(labels == 7, 0, labels))
    facts = examine_case(job)
    (fault,) = facts.faults
    assert fault.kind == "cropped label"
    assert "Received: 2 of 2 voxels outside" in fault.text
    assert facts.warnings == ()
    for margin_voxels, usable in ((4, False), (5, False), (6, True)):
        settings = {"unknown_labels": "fail", "margin_voxels": margin_voxels}
        assert is_usable(facts, **settings) == usable


def test_undecodable_names_of_other_files_are_escaped(faulty, tmp_path, run_light):
    folder = shutil.copytree(faulty / "Two", tmp_path / "raw" / "Two")
    (folder / "imagesTr" / os.fsdecode(b"stray\xff.nii.gz")).touch()
    run_light("data_prep.survey", raw_dir=tmp_path / "raw", output_dir=tmp_path)
    (domain,) = survey_file.load_survey(tmp_path)
    assert domain.warnings[0].endswith("imagesTr/stray\\udcff.nii.gz")


def test_survey_that_cannot_be_written_leaves_no_file(faulty, tmp_path, monkeypatch):
    def fail(domains):
        raise InputError("here", expected="this", received="that")

    monkeypatch.setattr(survey_file, "to_json", fail)
    monkeypatch.setattr(
        survey_domains.parallel, "workers", lambda *_, **__: InProcess()
    )
    flags = {"raw_dir": str(faulty), "output_dir": str(tmp_path)}
    with pytest.raises(InputError, match="here"):
        survey_domains.write_survey(SurveyConfig(**flags, domains=("Two",)))
    assert not (tmp_path / "survey.csv").exists()


def test_labels_are_rounded_on_request(odd, tmp_path):
    facts, cases = survey_one(odd, tmp_path)
    assert not facts.round_labels
    assert "`round_labels`" in cases["scaled"].faults[0].text
    facts, cases = survey_one(odd, tmp_path, round_labels=True)
    assert facts.round_labels
    assert cases["scaled"].faults == ()
    assert cases["scaled"].label_voxels == cases["um"].label_voxels


def test_memory_of_a_case_is_limited(odd, tmp_path):
    _, cases = survey_one(odd, tmp_path, max_memory_gb=1e-6)
    for case in cases.values():
        assert [fault.kind for fault in case.faults] == ["image", "label"]
        assert all("`max_memory_gb`" in fault.text for fault in case.faults)


def test_peculiarities_of_a_file_are_warnings(odd, tmp_path):
    for part in ("imagesTr", "labelsTr"):
        path = odd / part / "um.nii.gz"
        path.write_bytes(path.read_bytes() + b"xyz")
    _, cases = survey_one(odd, tmp_path)
    assert cases["um"].warnings == tuple(
        f"{odd / part / 'um.nii.gz'}: 3 bytes after the last voxel, ignored"
        for part in ("imagesTr", "labelsTr")
    )


def break_json(folder):
    (folder / "dataset.json").write_text('{"modality": ')


def remove_json(folder):
    (folder / "dataset.json").unlink()


def list_a_pair(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace(".nii.gz", ".hdr"))


@pytest.fixture
def three(tmp_path, write_dataset):
    """Writes the domains A, B and C; returns the flags to survey them."""
    for name in "ABC":
        write_dataset(tmp_path / "raw" / name, ["x"])
        (tmp_path / "raw" / name / "imagesTr").mkdir()
    return {"raw_dir": tmp_path / "raw", "output_dir": tmp_path / "out"}


@pytest.mark.parametrize("domains", ["", "A,B,C"])
def test_unreadable_domains_are_reported_and_the_others_surveyed(
    three, run_light, domains
):
    raw_dir, output = three.values()
    write_labels(raw_dir / "A", {"0": "background", "-1": "x"})
    list_a_pair(raw_dir / "C")
    # It is an error only for domains that are requested by name.
    status = 1 if domains else 0
    done = run_light("data_prep.survey", status=status, domains=domains, **three)
    assert [d.name for d in survey_file.load_survey(output)] == ["B"]
    lines = done.stdout.splitlines()
    faults = [line for line in lines if line.startswith("fault: ")]
    assert f"{raw_dir / 'A' / 'dataset.json'}: 'labels': expected 0 for" in faults[0]
    assert "Received: -1 for 'x'" in faults[0]
    assert f"{raw_dir / 'C' / 'dataset.json'}: " in faults[1]
    assert "x.hdr" in faults[1]
    assert str(raw_dir / "B") in faults[2]
    assert "not surveyed: A, C" in lines
    assert ("2 of 3 domains could not be used" in done.stderr) == bool(domains)


def write_labels(folder, labels):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "labels": labels}))


@pytest.mark.parametrize("break_it", [break_json, remove_json])
def test_images_without_a_valid_dataset_json_are_reported(three, break_it):
    raw_dir, _ = three.values()
    break_it(raw_dir / "B")
    shutil.copytree(raw_dir / "B", raw_dir / ".hidden")
    unusable = {}
    found = survey_domains.find_domains(raw_dir, [], unusable=unusable)
    assert [dataset.name for dataset in found] == ["A", "C"]
    assert list(unusable) == ["B"]
    assert str(unusable["B"]).startswith(f"{raw_dir / 'B' / 'dataset.json'}: expected ")
    with pytest.raises(InputError, match="B/dataset.json: expected"):
        survey_domains.find_domains(raw_dir, [])


@pytest.mark.parametrize("domains", ["", "A,B,C"])
def test_all_domains_are_reported_if_none_is_readable(three, run_light, domains):
    raw_dir, output = three.values()
    for name in "ABC":
        break_json(raw_dir / name)
    done = run_light("data_prep.survey", status=1, domains=domains, **three)
    for name in "ABC":
        assert f"{raw_dir / name / 'dataset.json'}: expected JSON" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("break_it", "domains", "message"),
    [
        (shutil.rmtree, "A,B", "--domains: expected a folder"),
        (lambda folder: None, "A,A", "--domains: expected distinct names"),
    ],
)
def test_bad_folder_is_an_error_before_anything_is_written(
    three, run_light, break_it, domains, message
):
    break_it(three["raw_dir"] / "B")
    done = run_light("data_prep.survey", status=1, domains=domains, **three)
    assert message in done.stderr
    assert not three["output_dir"].exists()


def test_unusual_voxel_sizes_are_reported(tmp_path):
    folder = tmp_path / "A"
    sizes = {"a": 1.0, "b": 1.2, "c": 1000.0, "d": 8.5, "e": 7.0, "f": 0.1}
    cases = [make_facts(name, (3 * size, size, size)) for name, size in sizes.items()]
    dataset = Dataset("A", folder, ("MRI",), {0: "background"}, (), ())
    warnings = compare_cases.domain_warnings(dataset, cases)
    usual = "but the median of the domain is 12.3 × 4.1 × 4.1 mm"
    assert [w for w in warnings if "median of the domain" in w] == [
        f"c.nii.gz: voxel size 3000 × 1000 × 1000 mm (z, y, x), {usual}",
        f"f.nii.gz: voxel size 0.3 × 0.1 × 0.1 mm (z, y, x), {usual}",
    ]
    warnings = compare_cases.domain_warnings(dataset, [make_facts("a", ())])
    assert not any("median" in warning for warning in warnings)


def test_an_inconsistent_header_of_a_label_map_is_reported(tmp_path, write_nifti):
    paths = [tmp_path / "image.nii", tmp_path / "labels.nii"]
    write_nifti(paths[0], draw_image(0))
    write_nifti(paths[1], make_labels())
    job = SurveyJob("A", "a", (str(paths[0]),), str(paths[1]), 1, (0, 1, 2), "pixdim")
    assert examine_case(job).warnings == ()
    for path, named in zip(reversed(paths), ("labels.nii", "image.nii"), strict=True):
        content = bytearray(path.read_bytes())
        # pixdim[1]
        content[80:84] = struct.pack("<f", 3)
        path.write_bytes(content)
        facts = examine_case(job)
        assert facts.faults == ()
        # Image and labels share one warning.
        (warning,) = facts.warnings
        assert named in warning
        assert "voxel size is 3 × 1 × 1 mm in pixdim and 1 × 1 × 1 mm in the" in warning


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("method", "number"),
    [("open", errno.EACCES), ("open", errno.ESTALE), ("stat", errno.EACCES)],
)
def test_files_that_the_system_cannot_read_are_faults(
    tmp_path, monkeypatch, suffix, method, number
):
    image_path, label_path = tmp_path / f"image{suffix}", tmp_path / "labels.nii"
    sitk.WriteImage(sitk.GetImageFromArray(draw_image(0)), image_path)
    sitk.WriteImage(sitk.GetImageFromArray(make_labels()), label_path)
    job = SurveyJob("A", "a", (str(image_path),), str(label_path), 1, (0, 1), "pixdim")
    assert examine_case(job).faults == ()
    real = getattr(pathlib.Path, method)

    def refuse(path, *arguments, **keywords):
        if path == image_path:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(pathlib.Path, method, refuse)
    (fault,) = examine_case(job).faults
    assert fault.kind == "image"
    assert os.strerror(number) in fault.text


def make_facts(name, spacing_mm):
    paths = f"{name}.nii.gz", f"labels_{name}.nii.gz"
    return CaseFacts("A", name, *paths, spacing_mm=spacing_mm)


def test_raw_dir_may_be_one_domain(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "A", ["x"])
    assert [d.name for d in survey_domains.find_domains(folder, [])] == ["A"]
    assert [d.name for d in survey_domains.find_domains(folder, ["A"])] == ["A"]
    with pytest.raises(InputError, match="`domains`: expected A, the only"):
        survey_domains.find_domains(folder, ["B"])


def test_progress_counts_all_cases_and_resuming_is_reported(interrupted):
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


def test_inconsistencies_of_dataset_json_are_warnings(tmp_path, write_dataset):
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
        f"2 volumes without a case: {folder}/imagesTr/y.nii.gz, "
        f"{folder}/labelsTr/y.nii.gz",
        "labels: expected distinct names. Received: several times: a",
    ]
