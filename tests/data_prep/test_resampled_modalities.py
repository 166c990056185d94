"""Modalities on different grids, from survey to shards."""

import dataclasses

import numpy as np
import pytest
from in_process import InProcess
from invented_scans import SHAPE, draw_image, make_labels
from invented_surveys import plan_one

from data_prep.config import ConversionConfig
from data_prep.convert import convert_domains
from data_prep.convert.convert_domains import convert as convert_plan
from data_prep.survey import survey_domains
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Plan
from u2net_tf.shards.manifest import manifest_path
from u2net_tf.volumes import case as case_files


@pytest.fixture
def folder(tmp_path, write_nifti, write_dataset):
    """Three cases in the layout of nnU-Net; the modalities of "b" differ in grid."""
    folder = tmp_path / "Two"
    write_dataset(folder, ["a", "b", "c"], modalities=("T2", "ADC"))
    for case in "abc":
        for channel in range(2):
            image = draw_image(ord(case) + channel)
            spacing = (1, 1, 1)
            if (case, channel) == ("b", 1):
                image, spacing = image[:, :, ::2], (1, 1, 2)
            path = folder / "imagesTr" / f"{case}_000{channel}.nii.gz"
            write_nifti(path, image, spacing)
        write_nifti(folder / "labelsTr" / f"{case}.nii.gz", make_labels(), (1, 1, 1))
    return folder


def survey(folder, **settings):
    (facts,) = survey_domains.survey(
        survey_domains.find_domains(folder, []),
        log=folder.parent / "log",
        spacing_source="pixdim",
        num_workers=1,
        executor=InProcess(),
        **settings,
    )
    return facts


def convert(folder, domain, **settings):
    settings = ConversionConfig(data_dir=str(folder.parent / "data"), **settings)
    (made,) = convert_plan(Plan((domain,)), settings, executor=InProcess())
    return made


def cases_of(manifest):
    return sorted(entry.case for entry in manifest.cases)


def test_a_different_grid_is_a_fault(folder):
    facts = survey(folder)
    (fault,) = facts.faults
    assert (fault.kind, fault.file) == ("image", f"{folder}/imagesTr/b_0000.nii.gz")
    for text in (
        "b_0001.nii.gz: expected the grid of ",
        "b_0000.nii.gz, 8 × 10 × 6 voxels of 1 × 1 × 1 mm",
        "4 × 10 × 6 voxels of 2 × 1 × 1 mm",
        "`resample_modalities`",
    ):
        assert text in fault.text
    assert not facts.resample_modalities
    with pytest.raises(InputError) as caught:
        plan_one(facts, use_presets=False)
    hint = "With `python -m data_prep.survey --resample_modalities` it is resampled"
    assert hint in str(caught.value)


def test_later_stages_resample_as_the_survey_did(folder):
    facts = survey(folder, resample_modalities=True)
    assert facts.faults == ()
    first, other, _ = facts.cases
    assert first.warnings == ()
    (warning,) = other.warnings
    assert "b_0001.nii.gz: resampled from 4 × 10 × 6 voxels of 2 × 1 × 1" in warning
    assert other.shape == SHAPE
    domain, _ = plan_one(facts, use_presets=False)
    assert domain.preprocessing.resample_modalities
    paths = [folder / "imagesTr" / f"b_000{channel}.nii.gz" for channel in range(2)]
    case_files.check_headers(paths, domain)
    image = case_files.read_image(paths, domain)
    percentiles = np.percentile(image.data[1], (0, 50))
    assert percentiles.tolist() == pytest.approx(
        [other.percentiles[1][i] for i in (0, 2)]
    )
    assert cases_of(convert(folder, domain)) == ["a", "b", "c"]


def test_the_setting_is_part_of_the_key_of_an_examined_case(folder):
    assert survey(folder).faults
    assert not survey(folder, resample_modalities=True).faults


@pytest.fixture
def older(folder):
    """A domain of an older survey, which accepted the case without resampling."""
    facts = survey(folder)
    a, b, c = facts.cases
    b = dataclasses.replace(a, case="b")
    domain, _ = plan_one(dataclasses.replace(facts, cases=(a, b, c)), use_presets=False)
    return domain


def test_skipped_cases_are_tried_again(folder, older, caplog):
    made = convert(folder, older, on_bad_case="skip")
    assert cases_of(made) == ["a", "c"]
    assert not made.resample_modalities
    assert convert(folder, older, on_bad_case="skip") == made
    with pytest.raises(InputError, match="expected all cases. Received: 1 skipped"):
        convert(folder, older)
    made = convert(folder, older, resample_modalities=True)
    assert cases_of(made) == ["a", "b", "c"]
    assert made.skipped == {}
    assert made.resample_modalities
    assert (
        "Two: converted again, since 1 skipped case can be used now: b" in caplog.text
    )


def test_skipped_for_lack_of_memory_is_tried_again(folder, older):
    domain = dataclasses.replace(older, train=("a",), validation=(), test=("c",))
    big = folder / "imagesTr" / "c_0000.nii.gz"
    real = convert_domains.write_part

    def refuse(job):
        if job.max_memory_gb == 1 and job.case.name == "c":
            return InputError(big, expected="memory", received="none")
        return real(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_domains, "write_part", refuse)
        settings = {"on_bad_case": "skip", "max_memory_gb": 1.0}
        assert cases_of(convert(folder, domain, **settings)) == ["a"]
        assert cases_of(convert(folder, domain, **settings)) == ["a"]
        settings["max_memory_gb"] = 2.0
        assert cases_of(convert(folder, domain, **settings)) == ["a", "c"]


def test_shards_with_resampled_modalities_are_distinguished(folder, older):
    made = convert(folder, older, resample_modalities=True)
    assert convert(folder, older, resample_modalities=True) == made
    with pytest.raises(InputError, match="expected shards without `resample_modal"):
        convert(folder, older)
    # Older shards, which do not record the setting, are accepted.
    path = manifest_path(folder.parent / "data", "Two")
    text = path.read_text().replace('"resample_modalities": true', '"note": 0')
    text = text.replace('"format": 3', '"format": 2').replace(',\n "note": 0', "")
    path.write_text(text)
    assert convert(folder, older).resample_modalities is None
    changed = convert(folder, older, resample_modalities=True, overwrite=True)
    assert changed.resample_modalities is None
