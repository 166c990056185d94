"""The memory of cases in `survey` and `convert`, and the number of workers."""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toy
from in_process import InProcess

from data_prep.config import ConversionConfig
from data_prep.convert import convert_domains
from data_prep.convert.case_memory import conversion_bytes
from data_prep.convert.part_files import ConversionJob, write_part
from data_prep.survey import survey_domains
from data_prep.survey.case_memory import examination_bytes
from data_prep.survey.examine_case import SurveyJob, examine_case
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.volumes.msd import Case

# x, y, z; large enough for the matrices of splines to be a small part.
SHAPE = (90, 80, 70)
VOXELS = 90 * 80 * 70
# A domain of six small cases.
ONE = toy.ONE.name


def save(path, voxels):
    """Writes (x, y, z) or (x, y, z, C) voxels of 1 mm."""
    if path.suffix == ".nrrd":
        axes = (2, 1, 0, 3)[: voxels.ndim]
        array = np.ascontiguousarray(voxels.transpose(axes))
        image = sitk.GetImageFromArray(array, isVector=voxels.ndim == 4)
        # RAS, as in the NIfTI file of the labels.
        image.SetDirection(np.diag([-1.0, -1.0, 1.0]).ravel().tolist())
        sitk.WriteImage(image, str(path))
    else:
        nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype), path)


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a case; returns the paths of image and labels."""

    def write(
        suffix=".nii.gz",
        num_modalities=1,
        *,
        dtype=np.int16,
        label_dtype=np.uint8,
        separate=False,
    ):
        generator = np.random.default_rng(0)
        shape = (*SHAPE, num_modalities) if num_modalities > 1 else SHAPE
        voxels = generator.integers(1, 1000, shape).astype(dtype)
        paths = [tmp_path / f"case{suffix}"]
        if separate:
            paths = [tmp_path / f"case_{n}{suffix}" for n in range(num_modalities)]
            for path, channel in zip(paths, np.moveaxis(voxels, -1, 0), strict=True):
                save(path, channel)
        else:
            save(paths[0], voxels)
        # The most memory is needed if a class fills the label map.
        save(tmp_path / "labels.nii.gz", np.ones(SHAPE, label_dtype))
        return tuple(paths), tmp_path / "labels.nii.gz"

    return write


def survey_job(paths, label_path, num_modalities=1, **settings):
    return SurveyJob(
        domain="Task",
        case="case",
        image_paths=tuple(map(str, paths)),
        label_path=str(label_path),
        num_modalities=num_modalities,
        known_labels=(0, 1),
        spacing_source="pixdim",
        **settings,
    )


def conversion_job(
    paths, label_path, num_modalities=1, spacing_mm=(1.0, 1.0, 1.0), **settings
):
    domain = Domain(
        name="Task",
        raw_dir="unset",
        modalities=tuple(f"modality {n}" for n in range(num_modalities)),
        labels=(Label("background", (0,)), Label("organ", (1,))),
        spacing_mm=spacing_mm,
        median_shape=(10, 12, 12),
        patch_size=(8, 8, 8),
        pools=(1, 1, 1),
        batch_size=2,
        train=("case",),
    )
    case = Case("case", tuple(map(pathlib.Path, paths)), pathlib.Path(label_path))
    part = pathlib.Path(label_path).parent / "case.npz"
    settings = {"image_dtype": "float16"} | settings
    return ConversionJob(domain, case, "train", signatures=[], part=part, **settings)


def peak_bytes(function, job):
    """Memory of NumPy's arrays; that of ITK is not counted."""
    # Imports and caches count once.
    first = function(job)
    tracemalloc.start()
    try:
        function(job)
        return tracemalloc.get_traced_memory()[1], first
    finally:
        tracemalloc.stop()


FILES = {
    "int16": {},
    "uncompressed": {"suffix": ".nii", "dtype": np.float32},
    "NRRD": {"suffix": ".nrrd", "dtype": np.float32, "num_modalities": 2},
    "two modalities": {"num_modalities": 2, "dtype": np.float32},
    "two files": {"num_modalities": 2, "separate": True},
    "float64": {"num_modalities": 4, "dtype": np.float64},
    "labels in int64": {"label_dtype": np.int64},
}


@pytest.mark.parametrize("name", FILES)
def test_an_examined_case_takes_no_more_than_estimated(write, name):
    paths = write(**FILES[name])
    job = survey_job(*paths, FILES[name].get("num_modalities", 1), ignore_label=7)
    peak, facts = peak_bytes(examine_case, job)
    assert not facts.faults
    assert 0.4 * examination_bytes(job) < peak < examination_bytes(job)


@pytest.mark.parametrize(
    "spacing_mm",
    [
        (1.0, 1.0, 1.0),
        pytest.param((1, 0.7, 0.7), marks=pytest.mark.slow),
        (2, 2, 1.5),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_a_converted_case_takes_no_more_than_estimated(write, name, spacing_mm):
    num_modalities = FILES[name].get("num_modalities", 1)
    job = conversion_job(*write(**FILES[name]), num_modalities, spacing_mm)
    peak, problem = peak_bytes(write_part, job)
    assert problem is None
    assert 0.3 * conversion_bytes(job) < peak < conversion_bytes(job)


def test_many_modalities(write):
    """Converting and writing the image takes more than resampling a modality of it."""
    paths = write(num_modalities=8, dtype=np.uint8)
    for dtype in ("float16", "float32"):
        job = conversion_job(*paths, 8, (1, 0.7, 0.7), image_dtype=dtype)
        peak, problem = peak_bytes(write_part, job)
        assert problem is None
        assert 0.5 * conversion_bytes(job) < peak < conversion_bytes(job)
    halved = dataclasses.replace(job, image_dtype="float16")
    assert conversion_bytes(job) > conversion_bytes(halved)


def test_modalities_of_different_sizes_count_as_large_as_the_largest(write):
    paths, labels = write(num_modalities=2, separate=True)
    save(paths[0], np.ones((30, 20, 10), np.int16))
    for job, estimate in (
        (survey_job(paths, labels, 2), examination_bytes),
        (conversion_job(paths, labels, 2), conversion_bytes),
    ):
        # Otherwise a case with a different second file is refused.
        assert estimate(job) < 1e6
        resampled = dataclasses.replace(job, resample_modalities=True)
        assert estimate(resampled) >= 16 * 2 * VOXELS
    settings = dataclasses.replace(job.domain.preprocessing, resample_modalities=True)
    domain = dataclasses.replace(job.domain, preprocessing=settings)
    assert conversion_bytes(dataclasses.replace(job, domain=domain)) > VOXELS


class TestFilesThatCannotBeUsed:
    def test_damaged(self, write):
        (path,), labels = write()
        path.write_bytes(b"no scan")
        # The label map is examined in any case.
        assert examination_bytes(survey_job([path], labels)) > 25 * VOXELS
        assert conversion_bytes(conversion_job([path], labels)) == 0
        labels.write_bytes(b"no labels")
        assert examination_bytes(survey_job([path], labels)) == 0

    def test_missing(self, tmp_path):
        paths = [tmp_path / "no.nrrd"], tmp_path / "none.nii.gz"
        assert examination_bytes(survey_job(*paths)) == 0
        assert conversion_bytes(conversion_job(*paths)) == 0

    def test_refused_by_themselves(self, write):
        paths = write()
        limit = {"max_memory_gb": 7 * VOXELS / 1e9}
        assert examination_bytes(survey_job(*paths, **limit)) == 0
        assert conversion_bytes(conversion_job(*paths, **limit)) == 0

    def test_absurd_spacing(self, write):
        """It is found after the case has been read."""
        truncated = Preprocessing(size_rounding="truncate")
        job = conversion_job(*write(), spacing_mm=(5e-4, 1, 1))
        domain = dataclasses.replace(job.domain, preprocessing=truncated)
        job = dataclasses.replace(job, domain=domain)
        assert "0.001 mm" in str(write_part(job))
        assert 16 * VOXELS <= conversion_bytes(job) < 40 * VOXELS


class Survey:
    """Runs the survey of a domain of six cases."""

    estimate = "data_prep.survey.case_memory.examination_bytes"
    activity = "examining cases"

    @staticmethod
    def name_of(job):
        return job.case

    def __init__(self, raw_dir, data_dir):
        self.folder, self.log = raw_dir / ONE, data_dir / "log"

    def run(self, **settings):
        (facts,) = survey_domains.survey(
            survey_domains.find_domains(self.folder, []),
            log=self.log,
            spacing_source="pixdim",
            **settings,
        )
        self.log.unlink()
        return facts


class Conversion:
    """Converts the same domain."""

    estimate = "data_prep.convert.convert_domains.conversion_bytes"
    activity = f"{ONE}: preprocessing cases"

    @staticmethod
    def name_of(job):
        return job.case.name

    def __init__(self, raw_dir, data_dir):
        self.raw_dir, self.data_dir = raw_dir, data_dir

    def run(self, executor=None, **settings):
        config = ConversionConfig(
            raw_dir=str(self.raw_dir),
            data_dir=str(self.data_dir),
            on_bad_case="skip",
            **settings,
        )
        try:
            (made,) = convert_domains.convert(
                Plan((toy.ONE,)), config, executor=executor
            )
        finally:
            shutil.rmtree(self.data_dir)
        return made


@pytest.fixture(params=[Survey, Conversion])
def command(request, tiny_data, tmp_path):
    return request.param(tiny_data.raw_dir, tmp_path)


@pytest.fixture
def chosen(monkeypatch):
    """The numbers of workers that the commands pass to `parallel.workers`."""
    numbers = []

    def workers(executor, num_workers, num_cases, **options):
        numbers.append(num_workers)
        return contextlib.nullcontext(executor or InProcess())

    monkeypatch.setattr("u2net_tf.parallel.workers", workers)
    return numbers


def test_number_of_workers(command, chosen, monkeypatch, caplog):
    """As many as fit with the largest cases, at least 1."""
    sizes = {"one_1": 4e9, "one_5": 2e9}
    monkeypatch.setattr(
        command.estimate, lambda job: sizes.get(command.name_of(job), 0.0)
    )
    monkeypatch.setattr("u2net_tf.machine.num_cores", lambda: 5)
    for limit, number in ((100, 5), (7.3, 3), (6.9, 2), (6.7, 1), (0.1, 1)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "absl"):
            command.run(num_workers=None, max_memory_gb=limit)
        assert chosen.pop() == number
        logged = [text for text in caplog.messages if command.activity in text]
        assert len(logged) == (number < 5)
    command.run(num_workers=2, max_memory_gb=7.3)
    assert chosen.pop() == 2
    monkeypatch.setattr("u2net_tf.machine.memory_bytes", lambda: 13.8e9)
    command.run(num_workers=5)
    assert chosen.pop() == 2
    # Other machines may have more memory.
    command.run(num_workers=5, max_memory_gb=0.1, executor=InProcess())
    assert chosen == [5]


def test_damaged_cases_do_not_count(tiny_data, tmp_path, chosen):
    raw_dir = shutil.copytree(tiny_data.raw_dir, tmp_path / "raw")
    (raw_dir / ONE / "imagesTr" / "one_1.nii.gz").write_bytes(b"no scan")
    (raw_dir / ONE / "labelsTr" / "one_2.nii.gz").unlink()
    facts = Survey(raw_dir, tmp_path).run(num_workers=3)
    assert [case.case for case in facts.cases if case.faults] == ["one_1", "one_2"]
    made = Conversion(raw_dir, tmp_path / "data").run(num_workers=3)
    assert sorted(made.skipped) == ["one_1", "one_2"]
    assert chosen == [3, 3]
