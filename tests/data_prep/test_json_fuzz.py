"""Every mutated JSON file is read, or reported in a short message."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import random

import pytest
from invented_plan import PLAN
from invented_surveys import make_domain
from json_mutations import mutate

from data_prep.config import PlanConfig
from data_prep.plan.write_plan import write_plan
from data_prep.survey import survey_file
from data_prep.survey.survey_domains import EXAMINED_CASE
from u2net_tf import work_log
from u2net_tf.errors import InputError
from u2net_tf.evaluation.scored_case import SCORE, Score
from u2net_tf.evaluation.tables import SUMMARY
from u2net_tf.inference.outputs import LABEL_MAP, RECORD, Outputs, PredictionRecord
from u2net_tf.models.run_state import STATE, RunState, ScheduleState
from u2net_tf.models.spec import MODEL, ModelSpec, check_patches, common_pools
from u2net_tf.plan import limits, plan_file
from u2net_tf.shards import manifest
from u2net_tf.volumes import msd

ARTEFACTS = pathlib.Path(__file__).parents[1] / "artefacts" / "0.1.0"
MAX_CHARACTERS = 3000
KNEE = make_domain()
NAMES = [case.case for case in KNEE.cases]
SURVEY = json.loads(survey_file.to_json([KNEE, make_domain("Task04_Hippocampus")]))
ROW = {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}
OTHER_ROW = {"image": ".\\a\\ct.nii", "label": ".\\a\\seg.nii"}


def read_artefact(name):
    return json.loads((ARTEFACTS / name).read_text(encoding="utf-8"))


def read_plan(path):
    plan = plan_file.load_plan(path)
    # Builds the smallest part of the plan.
    for domain in plan.domains:
        common_pools(plan.select([domain.name]), None)
        assert all(2**pools <= 2**16 for pools in domain.pools)
    assert plan_file.PLAN.from_text(plan_file.plan_to_json(plan), path) == plan


def read_model(path):
    spec = MODEL.load(path)
    check_patches(spec)
    limits.require_network(spec.base_channels, spec.pools)


def read_record(path):
    """Predicts a scan into a folder with the record of an earlier prediction."""
    folder = path.parent / "out"
    ours, other = folder / "x.nii.gz", folder.parent / "y.nii.gz"
    folder.mkdir()
    for file in (ours, other, folder / "y.nii.gz"):
        file.touch()
    (folder / ".predicted").mkdir()
    path.rename(folder / ".predicted" / "x.json")
    before = times_of(folder.parent)
    outputs = Outputs(folder, "x", {LABEL_MAP: ours}, "key")
    outputs.is_complete()
    outputs.edited()
    with contextlib.suppress(InputError):
        outputs.require_unedited()
    outputs.begin()
    outputs.finish()
    assert times_of(folder.parent) == before


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


def read_survey(path):
    write_plan(PlanConfig.from_flat({"survey": str(path), "output": f"{path}.plan"}))


def read_splits(path, **fold):
    (path.parent / "survey.json").write_text(survey_file.to_json([KNEE]))
    flat = {"survey": str(path.parent), "output": f"{path}.plan"}
    write_plan(PlanConfig.from_flat({**flat, "splits_file": str(path), **fold}))


def read_manifest(path):
    plan = plan_file.load_plan(ARTEFACTS / "shards" / "plan.json")
    folder = path.rename(path.with_name("manifest.json")).parent
    found = manifest.load_manifest(folder.parent, folder.name)
    domain = plan.domains[plan.index("Task91_One")]
    found.differences(domain)
    found.shards(domain.train)


def read_dataset(path):
    path.rename(path.with_name("dataset.json"))
    for name in ("imagesTr/x.nii.gz", "labelsTr/x.nii.gz", "labelsTr/y.nii.gz"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).touch()
    dataset = msd.read_dataset(path.parent)
    msd.unlisted_files(dataset)
    used = len(dataset.cases) + len(dataset.duplicates)
    content = json.loads((path.parent / "dataset.json").read_text("utf-8-sig"))
    listed = content.get("training", content.get("dataset", [0] * used))
    assert used == len(listed) or dataset.notes or dataset.duplicates


def read_log(path):
    records = work_log.Log(path, EXAMINED_CASE).read()
    # Writes the table as a resumed survey does.
    survey_file.to_csv(
        [
            dataclasses.replace(KNEE, name=record.facts.domain, cases=(record.facts,))
            for record in records.values()
        ]
    )


LOG_LINE = {**EXAMINED_CASE.to_dict(EXAMINED_CASE.kind("key", KNEE.cases[0]))}
LISTS = {"train": NAMES[:6], "validation": NAMES[6:8], "test": NAMES[8:]}
FOLDS = [
    {"train": NAMES[:6], "val": NAMES[6:]},
    {"train": NAMES[6:], "val": NAMES[:6]},
]
MSD = {
    "name": "Knee",
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "bone", "2": "cartilage"},
    "numTraining": 2,
    "training": [ROW, OTHER_ROW],
}
NNUNET = {
    "channel_names": {"0": "T2", "1": "ADC"},
    "labels": {"background": 0, "bone": 1, "cartilage": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
BY_NAME = {"x": {"images": ["x_0000.nii.gz", "x_0001.nii.gz"], "label": "x.nii.gz"}}
TRAINED = RunState(
    step=3,
    schedule=ScheduleState(0.1),
    logs={"step": 3, "loss": 0.5},
    invariants={"seed": 1},
)
PREDICTED = PredictionRecord("key", {"x.nii.gz": [0, 1], "y": None}, ("x.nii.gz",))
KINDS = {
    "plan": (plan_file.PLAN.to_dict(PLAN), read_plan),
    "old plan": (read_artefact("plan.json"), read_plan),
    "model": (MODEL.to_dict(ModelSpec(plan=PLAN, pools=(1, 1, 1))), read_model),
    "survey": (SURVEY, read_survey),
    "old survey": (read_artefact("survey/survey.json"), read_survey),
    "line of a log": (LOG_LINE, read_log),
    "manifest": (read_artefact("shards/Task91_One/manifest.json"), read_manifest),
    "summary": (read_artefact("evaluation/summary.json"), SUMMARY.load),
    "record": (RECORD.to_dict(PREDICTED), read_record),
    "score": (SCORE.to_dict(Score("key", {"bone": 0.5}, {})), SCORE.load),
    "state": (STATE.to_dict(TRAINED), STATE.load),
    "lists": ({"Task99_Knee": LISTS}, read_splits),
    "folds": ({"Task99_Knee": {"fold0": FOLDS[0], "b": FOLDS[1]}}, read_splits),
    "all folds": (
        {"Task99_Knee": {"fold0": FOLDS[0], "b": FOLDS[1]}},
        functools.partial(read_splits, fold="all"),
    ),
    "folds of nnU-Net": (FOLDS, read_splits),
    "fold of nnU-Net": (FOLDS, functools.partial(read_splits, fold="1")),
    "dataset": (MSD, read_dataset),
    "dataset of nnU-Net": (NNUNET, read_dataset),
    "dataset by name": ({**NNUNET, "dataset": BY_NAME}, read_dataset),
}


def check(kind, seed, folder):
    """Reads a mutated file; any error must be an InputError with a short message."""
    content, read = KINDS[kind]
    odd = mutate(random.Random(f"{kind} {seed}"), content)
    folder = folder / f"{seed}" / "Task91_One"
    folder.mkdir(parents=True)
    path = folder / "odd.json"
    path.write_bytes(odd)
    try:
        read(path)
    except (InputError, OSError) as error:
        raised = error
    else:
        return
    if isinstance(raised, OSError):
        # For example, an invalid file name.
        assert raised.filename, f"seed {seed}"
        return
    message = str(raised)
    message.encode()
    assert 20 < len(message) < MAX_CHARACTERS, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_json_is_read_or_reported(tmp_path, kind):
    for seed in range(30):
        check(kind, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutations_are_read_or_reported(tmp_path, kind):
    for seed in range(30, 1000):
        check(kind, seed, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_json_is_read(tmp_path, kind):
    """Otherwise its mutations would show nothing."""
    content, read = KINDS[kind]
    folder = tmp_path / "Task91_One"
    folder.mkdir()
    path = folder / "unchanged.json"
    path.write_text(json.dumps(content))
    read(path)
