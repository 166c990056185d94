"""Predicts the cases of a split from their raw scans and scores them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from u2net_tf import files, migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.evaluation.metrics import dice
from u2net_tf.evaluation.tables import CaseScore
from u2net_tf.file_format import FileFormat
from u2net_tf.inference.outputs import Outputs
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.schema import MaybeNan, Text
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
                raise InputError(path, expected="a file", received="no such file")
    return cases


def score_domain(
    predictor: Predictor,
    index: int,
    cases: Sequence[msd.Case],
    output_dir: pathlib.Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[CaseScore]:
    """Predicts and scores cases on the grid of their images.

    Label maps go to `predictions/DOMAIN/CASE.nii.gz`. A case whose files were scored
    before with the same model and settings is not predicted again, as long as its
    label map is as it was written.

    Args:
      predictor: the model.
      index: index of the domain.
      cases: the cases.
      output_dir: folder to write to.
      overwrite: predict and score all cases again, and write over any label map.
      progress: shows how many cases are done.

    Raises:
      InputError: names the file, if a scan or a label map cannot be used, or if a label
        map that would be written over was not written here or was edited since. The
        latter is found before the first case is predicted.
    """
    tasks = [_Task(predictor, index, case, output_dir) for case in cases]
    known: list[dict[str, float] | None] = [None] * len(tasks)
    if not overwrite:
        known = [task.known_score() for task in tasks]
        for task, score in zip(tasks, known, strict=True):
            if score is None:
                task.outputs.check_ours()
    domain = predictor.spec.plan.domains[index]
    scores = []
    pairs = zip(tasks, known, strict=True)
    for task, score in progress(pairs, domain.name, total=len(tasks), unit="case"):
        if score is None:
            score = task.score()
        scores.append(CaseScore(domain.name, task.case.name, score))
    return scores


@schema.model
class Score:
    """The score of one case as a file.

    Attributes:
      key: of what the label map was made with.
      dice: label -> Dice; NaN where neither mask holds the label.
    """

    key: Text
    dice: dict[str, MaybeNan]


SCORE = FileFormat(
    name="a score",
    made_by="python -m u2net_tf.evaluate",
    kind=Score,
    oldest=0,
    upgrades=(migrations.unversioned,),
)


class _Task:
    """A case to score, its label map and its score."""

    def __init__(
        self,
        predictor: Predictor,
        index: int,
        case: msd.Case,
        output_dir: pathlib.Path,
    ):
        self.case = case
        self._predictor = predictor
        self._index = index
        self._domain = predictor.spec.plan.domains[index]
        folder = output_dir / "predictions" / self._domain.name
        self._path = folder / f"{case.name}.nii.gz"
        self._score_path = (
            output_dir / ".scores" / self._domain.name / f"{case.name}.json"
        )
        self._key = predictor.key(index, [case.image_path, case.label_path])
        self.outputs = Outputs(folder, case.name, [self._path], self._key)
        self._adopt()

    def known_score(self) -> dict[str, float] | None:
        """Dice by label, if it is that of the label map as it is now."""
        if not self.outputs.are_there() or self.outputs.edited():
            return None
        content = self._read_score()
        return content.dice if content and content.key == self._key else None

    def score(self) -> dict[str, float]:
        """Predicts the case; returns the Dice by label."""
        image = case_files.read_image([self.case.image_path], self._domain)
        reference = case_files.read_labels(self.case.label_path, image, self._domain)
        classes = self._predictor.predict(image, self._index).classes
        labels = case_files.raw_labels(classes, self._domain)
        self.outputs.begin()
        nifti.save_labels(self._path, labels, image.grid)
        self.outputs.finish()
        values = dice(reference, classes, num_classes=self._domain.num_classes)
        names = [label.name for label in self._domain.labels[1:]]
        score = dict(zip(names, values.tolist(), strict=True))
        content = SCORE.to_dict(Score(self._key, score))
        files.write_text(self._score_path, json.dumps(content))
        return score

    def _adopt(self) -> None:
        content = self._read_score()
        if content and migrations.is_label_map_as_scored(self._path, self._score_path):
            self.outputs.adopt(content.key)

    def _read_score(self) -> Score | None:
        """None if there is none, or one left by a machine that went down."""
        try:
            return SCORE.load(self._score_path)
        except (OSError, InputError):
            return None
