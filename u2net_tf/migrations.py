"""Upgrades of files of older versions.

Functions that take the content of a file take that of the previous format. No other
module handles older formats, except `models.object_graph`; see `old_flags` for flags.

| format | release 0.1.0 | now |
|---|---|---|
| plan | 1 | 2: folds; 3: scans; 4: resampling; 5: codes; 6: foreground; 7: regions |
| manifest | 1 | 2: groups, which the plan's hash does not cover; 3: resampling |
| survey | 1 | 2: faults by case; 3: units; 5: foreground; 6: regions |
| log of a survey | 1 | 2: units; 3: foreground |
| model, within a checkpoint | 0 (none), plan as text | 4: counts; 6: gates; 9: plan 7 |
| state of a run, within a checkpoint | 0 (none) | 3: replicas; 4: initial cases |
| variables of a checkpoint | keys of TensorFlow's object graph | paths of variables |
| summary of an evaluation | 0 (none) | 6: hash; 8: regions; 9: unlisted cases |
| record of a prediction | 0 (none) | 1 |
| score | 0 (none) | 2: false positives; 3: surfaces; 4: regions |
| description of a model file | | 2: scores of regions |
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeAlias

Upgrade: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


def _adding(**fields: Any) -> Upgrade:
    """Returns an upgrade that adds fields to a file."""
    return lambda content: {**content, **fields}


def _adding_to_domains(**fields: Any) -> Upgrade:
    """Returns an upgrade that adds fields to all domains of a plan or survey."""
    return lambda content: {
        **content,
        "domains": [{**fields, **domain} for domain in content["domains"]],
    }


# Preprocessing fields that older plans and shards lack, with the values that applied
# before they could be chosen.
LATER_PREPROCESSING = {
    "intensity_floor": None,
    "statistics_over": "all",
    "size_rounding": "nearest",
    "round_labels": False,
    "resample_modalities": False,
    "intensity_statistics": None,
}

# TensorFlow's list of checkpoints, which no longer lists them all.
OBSOLETE_IN_CHECKPOINTS = ("checkpoint",)
# Settings of a run that earlier versions did not record, as these versions had them.
EARLIER_INVARIANTS = {"weight_ema_decay": 0.0}
# Folder next to the checkpoints, in which a new one was written.
UNFINISHED_CHECKPOINTS = ".unfinished"
# Temporary file names used to contain only the ID of the process.
OBSOLETE_TEMPORARY_NAME = r"\.partial-[0-9]+-"


def plan(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan to format 2: adds folds, and preprocessing fields if missing."""
    domains = [dict(domain) for domain in content["domains"]]
    for domain in domains:
        given = domain.get("preprocessing")
        if isinstance(given, dict):
            domain["preprocessing"] = {**LATER_PREPROCESSING, **given}
        if "folds" in domain:
            raise ValueError("folds, which plans of this format do not have")
        domain["folds"] = []
    return {**content, "domains": domains}


def plan_with_scans(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan to format 3: labels were not rounded, scans not described."""
    content = _adding_to_domains(scans=None)(content)
    return _with_preprocessing(content, {"round_labels": False})


def plan_with_resampling(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan to format 4: modalities were not resampled."""
    return _with_preprocessing(content, {"resample_modalities": False})


def plan_with_foreground(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan to format 6: the foreground was not used.

    Every scan was standardized by itself, and only components of classes were removed.
    """
    content = _adding_to_domains(keep_foreground_components=0)(content)
    return _with_preprocessing(content, {"intensity_statistics": None})


# 7: all voxels had a class, and none had several.
plan_with_regions = _adding_to_domains(ignore_label=None, regions=[])


def _with_preprocessing(content: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Adds fields to the preprocessing of all domains of a plan."""
    domains = [dict(domain) for domain in content["domains"]]
    for domain in domains:
        if isinstance(domain.get("preprocessing"), dict):
            domain["preprocessing"] = {**new, **domain["preprocessing"]}
    return {**content, "domains": domains}


def plan_with_anatomy(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan to format 5: the codes of classes were those of their names."""
    domains = [
        {**domain, "labels": [{"anatomy": None, **row} for row in domain["labels"]]}
        for domain in content["domains"]
    ]
    return {**content, "domains": domains}


def manifest(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a manifest to format 2: shards belonged to splits, not to groups."""
    cases = [dict(entry) for entry in content["cases"]]
    for entry in cases:
        if "split" in entry:
            entry["group"] = entry.pop("split")
    return {"shard_size_mb": None, "raw_stamps": {}, **content, "cases": cases}


# Format 3 of a manifest: resampling of modalities was not recorded.
manifest_with_resampling = _adding(resample_modalities=None)


def survey(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a survey to format 2: faults of cases were also listed by domain."""
    domains = [dict(domain) for domain in content["domains"]]
    for domain in domains:
        domain.pop("faults", None)
    return {**content, "domains": domains}


def survey_units(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a survey to format 3: units were ignored, and labels not rounded."""
    content = _adding_to_domains(round_labels=False)(content)
    return _with_cases(content, _facts_with_unit)


# 4: modalities were not resampled.
survey_with_resampling = _adding_to_domains(resample_modalities=False)
# 6: all voxels had a class, and none had several.
survey_with_regions = _adding_to_domains(ignore_label=None, regions={})


def survey_with_foreground(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a survey to format 5: the foreground was not measured."""
    return _with_cases(content, lambda facts: {**_NO_FOREGROUND, **facts})


def examined_case_with_foreground(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a line of a survey's log to format 3: see `survey_with_foreground`."""
    return {**content, "facts": {**_NO_FOREGROUND, **content["facts"]}}


_NO_FOREGROUND = {"foreground_intensities": None}


def examined_case(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a line of a survey's log to format 2: units were ignored."""
    return {**content, "facts": _facts_with_unit(content["facts"])}


def _with_cases(content: dict[str, Any], upgrade: Upgrade) -> dict[str, Any]:
    """Upgrades the facts of all cases of a survey."""
    domains = [dict(domain) for domain in content["domains"]]
    for domain in domains:
        if "cases" in domain:
            domain["cases"] = [upgrade(facts) for facts in domain["cases"]]
    return {**content, "domains": domains}


def _facts_with_unit(facts: dict[str, Any]) -> dict[str, Any]:
    # Voxel sizes were assumed to be in millimetres.
    return {"length_unit": "mm" if facts.get("shape") else "", **facts}


# Format 2 of a summary: an unusable case used to end the evaluation.
summary = _adding(skipped={})
# 4: postprocessing was always that of the plan.
summary_with_postprocessing = _adding(postprocessing={})
# 5: other settings were not recorded.
summary_with_prediction = _adding(prediction=None, depths=None)
# 6: the model was identified by paths only.
summary_with_hashes = _adding(checkpoint_hashes=None, training_cases=None)
# 8, and 4 of a score: only classes were scored.
summary_with_regions = score_with_regions = _adding(regions=[])
# 9: the classes of regions, and whether a model lists all its training cases, were not
# recorded.
summary_with_unlisted_cases = _adding(
    region_classes=None, domains_with_unlisted_cases=None
)


def summary_with_volumes(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a summary to format 3: false positives of classes were not recorded."""
    new = {"num_without": 0, "false_positive_ml": None}
    return {**content, "classes": [{**row, **new} for row in content["classes"]]}


def summary_with_surfaces(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a summary to format 7: surfaces were not compared."""
    new = dict.fromkeys(("hd95_mm", "surface_dice"))
    classes = [{**row, **new} for row in content["classes"]]
    return {**content, "surface_tolerance_mm": None, "classes": classes}


def score_with_volumes(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a score to format 2: it contained only the Dice.

    A Dice above 0 implies that the reference contains the class, and an undefined one
    that neither mask does. A Dice of 0 implies neither; the case is scored again.
    """
    dice = {label: value for label, value in content["dice"].items() if value != 0}
    volumes = {label: 0.0 for label, value in dice.items() if value is None}
    return {**content, "dice": dice, "false_positive_ml": volumes}


def score_with_surfaces(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a score to format 3: surfaces were not compared."""
    return {**content, "surface_tolerance_mm": None, "hd95_mm": {}, "surface_dice": {}}


def model_spec(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a model to format 1: its plan was a string."""
    inner = json.loads(content["plan"])
    if inner.pop("format") != 1:
        raise ValueError("a plan of a format other than 1")
    return {**content, "plan": plan(inner)}


def model_with(upgrade: Upgrade) -> Upgrade:
    """Returns the upgrade of a model whose plan is upgraded to the next format."""
    return lambda content: {**content, "plan": upgrade(content["plan"])}


# Format 4 of a model: it contained the names of all cases.
model_with_case_counts = _adding(case_counts=[])
# 5: every network was a 3D U²-Net.
model_with_architecture = _adding(
    architecture="u2net", depth=None, align_corners=False, deep_supervision=True
)
# 6: no network had gates.
model_with_gates = _adding(gates="none")


def model_file_with_regions(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades the description of a model file to format 2: only classes had scores."""
    new: dict[str, Any] = {"regions": [], "lists_training_cases": None}
    card = content["card"]
    domains = [dict(domain) for domain in card["domains"]]
    for domain in domains:
        if domain["evaluation"] is not None:
            domain["evaluation"] = {**new, **domain["evaluation"]}
    return {**content, "card": {**card, "domains": domains}}


def run_state(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrades the state of a run to format 1.

    What a run needs to resume was nested one level deeper and, before release 0.1.0,
    was the entire file.
    """
    if "run" not in content:
        content = {"state": content, "run": {}}
    state = content["state"]
    # A composed model has no state of training.
    state = {"step": 0, "schedule": None, "row": None, **state}
    if state["schedule"] is not None:
        state["schedule"] = {"window": [], **state["schedule"]}
    best = content.get("best")
    return {**state, "run": content["run"], "best": best, "records": None}


# Format 2 of the state of a run: it was only saved after an epoch.
run_state_between_epochs = _adding(partial_epoch=None)
# 3: the replicas were not recorded.
run_state_without_replicas = _adding(num_replicas=None)
# 4: initial weights were random.
run_state_with_initial_cases = _adding(initial_cases=[])


# Format 1 of a file whose content is the same as without a format.
unversioned = _adding()


def is_label_map_as_scored(label_map: pathlib.Path, score: pathlib.Path) -> bool:
    """Returns whether a label map is unedited since release 0.1.0 scored it.

    That release did not record the label maps that it wrote, but wrote the score after
    each of them.
    """
    if not label_map.is_file():
        return False
    return label_map.stat().st_mtime_ns <= score.stat().st_mtime_ns


def plan_hash_with_split(parts: dict[str, Any], splits: list[tuple[str, ...]]) -> str:
    """Returns the plan hash of a domain as in manifests of format 1.

    Args:
      parts: what the current hash covers.
      splits: the cases to train, validate and test on.
    """
    text = json.dumps({**parts, "splits": splits}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
