"""Predicts the cases of a split from their raw scans and scores them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from tqdm import tqdm

from u2net_tf import files
from u2net_tf.command import InputError
from u2net_tf.domains import Domain
from u2net_tf.evaluation.metrics import dice
from u2net_tf.evaluation.report import CaseScore
from u2net_tf.inference.predictor import Predictor
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import msd, nifti


def find_cases(domain: Domain, split: str, raw_dir: str | None) -> list[msd.Case]:
    """The cases of a split and their files.

    Args:
      domain: gives the split and, unless `raw_dir` is given, the folder.
      split: "train", "validation" or "test".
      raw_dir: folder with a folder per domain, if the scans have moved.

    Raises:
      InputError: if the dataset, a case or a file is missing.
    """
    dataset = msd.read_domain(domain, raw_dir)
    cases = [dataset.case(name) for name in domain.cases(split)]
    for case in cases:
        for path in (case.image_path, case.label_path):
            if not path.is_file():
                raise InputError(f"{path}: expected a file, found none")
    return cases


def score_domain(
    predictor: Predictor,
    index: int,
    cases: Sequence[msd.Case],
    output_dir: pathlib.Path,
) -> list[CaseScore]:
    """Predicts and scores cases on the grid of their images.

    Label maps go to `predictions/DOMAIN/CASE.nii.gz`. A case whose files were scored
    before with the same model and settings is not predicted again.

    Args:
      predictor: the model.
      index: index of the domain.
      cases: the cases.
      output_dir: folder to write to.

    Raises:
      InputError: names the file, if a scan or a label map cannot be used.
    """
    domain = predictor.spec.plan.domains[index]
    folder = output_dir / "predictions" / domain.name
    scores = []
    for case in tqdm(cases, domain.name, unit="case", disable=None):
        path = folder / f"{case.name}.nii.gz"
        score_path = output_dir / ".scores" / domain.name / f"{case.name}.json"
        key = predictor.key(index, [case.image_path, case.label_path])
        score = _read_score(score_path, key) if path.is_file() else None
        if score is None:
            # An old score must not be taken for that of a new label map.
            score_path.unlink(missing_ok=True)
            score = _score_case(predictor, index, case, path)
            text = json.dumps({"key": key, "dice": score})
            files.write_text(score_path, text)
        scores.append(CaseScore(domain.name, case.name, score))
    return scores


def _score_case(
    predictor: Predictor, index: int, case: msd.Case, path: pathlib.Path
) -> dict[str, float]:
    domain = predictor.spec.plan.domains[index]
    image = case_files.read_image([case.image_path], domain)
    reference = case_files.read_labels(case.label_path, image, domain)
    classes = predictor.predict(image, index).classes
    nifti.save_labels(path, case_files.raw_labels(classes, domain), image.grid)
    values = dice(reference, classes, num_classes=domain.num_classes)
    names = [label.name for label in domain.labels[1:]]
    return dict(zip(names, values.tolist(), strict=True))


def _read_score(path: pathlib.Path, key: str) -> dict[str, float] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["dice"] if content["key"] == key else None
    except (ValueError, KeyError, TypeError):
        # Left by a machine that went down; the case is scored again.
        return None
