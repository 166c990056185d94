"""A folder in the layout of nnU-Net through survey, plan and convert."""

import json

import numpy as np
from in_process import InProcess
from invented_scans import SHAPE, draw_image, make_labels

from data_prep.config import ConversionConfig, PlanConfig
from data_prep.convert import convert_domains
from data_prep.plan.write_plan import write_plan
from data_prep.survey import survey_domains, survey_file
from u2net_tf import files
from u2net_tf.evaluation.scoring import find_cases
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.shards.manifest import load_manifest
from u2net_tf.volumes import case as case_files

NAMES = ("knee_0000", "knee_0001", "knee_0002", "knee_0003")


def write_raw(folder, write_nifti):
    content = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "bone": 1},
        "numTraining": len(NAMES),
        "file_ending": ".nii.gz",
    }
    for seed, name in enumerate(NAMES):
        for channel in (0, 1):
            path = folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            write_nifti(path, draw_image(seed) + 1000 * channel)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", make_labels())
    (folder / "dataset.json").write_text(json.dumps(content))
    folds = [
        {"train": [*NAMES[:2]], "val": [*NAMES[2:]]},
        {"train": [*NAMES[2:]], "val": [*NAMES[:2]]},
    ]
    (folder / "splits_final.json").write_text(json.dumps(folds))


def test_layout_of_nnu_net_is_supported(tmp_path, write_nifti):
    folder = tmp_path / "raw" / "Dataset001_Knee"
    write_raw(folder, write_nifti)
    domains = survey_domains.survey(
        survey_domains.find_domains(tmp_path / "raw", []),
        log=tmp_path / "log",
        spacing_source="pixdim",
        num_workers=1,
        executor=InProcess(),
    )
    (facts,) = domains
    assert facts.faults == ()
    assert facts.all_warnings == ()
    assert [case.case for case in facts.cases] == list(NAMES)
    assert [len(case.percentiles) for case in facts.cases] == [2] * 4
    first, second = facts.cases[0].percentiles
    np.testing.assert_allclose(np.subtract(second, first), 1000, rtol=1e-4)

    files.write_text(tmp_path / "survey.json", survey_file.to_json(domains))
    settings = {
        "survey": str(tmp_path),
        "output": str(tmp_path / "plan.json"),
        "splits_file": str(folder / "splits_final.json"),
        "fold": "1",
    }
    write_plan(PlanConfig.from_flat(settings))
    plan = load_plan(tmp_path / "plan.json")
    (domain,) = plan.domains
    assert domain.modalities == ("T2", "ADC")
    assert (domain.train, domain.validation) == (NAMES[2:], NAMES[:2])

    convert_domains.convert(
        plan, ConversionConfig(data_dir=str(tmp_path / "data")), executor=InProcess()
    )
    entries = load_manifest(tmp_path / "data", domain.name).cases
    assert {tuple(entry.shape) for entry in entries} == {SHAPE}
    names = ["knee_0000_0000.nii.gz", "knee_0000_0001.nii.gz", "knee_0000.nii.gz"]
    (entry,) = (entry for entry in entries if entry.case == NAMES[0])
    assert [path.rpartition("/")[2] for path in entry.files] == names

    (case, _) = find_cases(domain, "validation", None)
    image = case_files.read_image(case.image_paths, domain)
    np.testing.assert_allclose(image.data[1] - image.data[0], 1000, rtol=1e-4)
