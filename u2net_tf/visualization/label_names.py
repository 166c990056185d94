"""Names of a domain and of the values in its label maps, for figures."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.volumes import dataset_json


class LabelNames(NamedTuple):
    """Names of a domain and of the classes in its label maps.

    Attributes:
      domain: name of the domain; "" if unknown.
      classes: values and name of each class, without the background. A class is drawn
        and scored as the first of its values.
      ignore_label: value of voxels without annotation; None if there is none.
    """

    domain: str = ""
    classes: tuple[tuple[tuple[int, ...], str], ...] = ()
    ignore_label: int | None = None

    @property
    def values(self) -> list[int]:
        """The first value of each class."""
        return [values[0] for values, _ in self.classes]

    def name(self, value: int) -> str:
        """Returns the name of the class of a value."""
        return {values[0]: name for values, name in self.classes}.get(
            value, f"value {value}"
        )

    def merge(self, labels: np.ndarray) -> np.ndarray:
        """Returns a label map in which each class has a single value."""
        merged = labels.copy()
        for (first, *others), _ in self.classes:
            for value in others:
                merged[labels == value] = first
        return merged


def find_label_names(
    image: pathlib.Path, prediction: pathlib.Path, plan: Plan | None
) -> LabelNames:
    """Returns the names for the domain of a file or folder of images.

    Args:
      image: file or folder of images.
      prediction: file or folder of predictions.
      plan: plan with the domain, which is found by the name of the folder that
        contains the folder of images, as in raw data, or by that of the folder of
        predictions. Without a plan, the names are read from `dataset.json` next to the
        folder of images.

    Raises:
      InputError: if the plan has no such domain.
    """
    image_folder, prediction_folder = (
        path.absolute() if path.is_dir() else path.absolute().parent
        for path in (image, prediction)
    )
    raw_dir = image_folder.parent
    if plan is None:
        return _from_dataset(raw_dir)
    candidates = (raw_dir.name, prediction_folder.name)
    for domain in plan.domains:
        if domain.name in candidates or pathlib.Path(domain.raw_dir) == raw_dir:
            return _of_domain(domain)
    raise InputError(
        "`plan`",
        expected=f"a domain named {' or '.join(dict.fromkeys(candidates))}",
        received=", ".join(plan.names),
    )


def _of_domain(domain: Domain) -> LabelNames:
    classes = tuple((label.values, label.name) for label in domain.labels[1:])
    return LabelNames(domain.name, classes, domain.ignore_label)


def _from_dataset(raw_dir: pathlib.Path) -> LabelNames:
    path = raw_dir / "dataset.json"
    if not path.is_file():
        return LabelNames()
    try:
        content = load_json(path)
        labels = dataset_json.read_labels(
            path, content if isinstance(content, dict) else {}
        )
    except (InputError, OSError) as error:
        logging.warning("%s; classes are shown by their values", error)
        return LabelNames(raw_dir.name)
    classes = tuple(((value,), name) for value, name in labels.names.items() if value)
    return LabelNames(raw_dir.name, classes, labels.ignore_label)
