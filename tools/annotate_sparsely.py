r"""Copies a dataset with every n-th slice of its training cases annotated.

    python -m tools.annotate_sparsely --raw_dir=RAW/TASK --plan=plan.json \
        --output_dir=SPARSE --every=4

The other slices get an ignore label or, for comparison, --fill=background. Slices are
those along the third axis of the files. Cases that the plan does not train on stay
complete. The images are linked.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Literal

import nibabel as nib
import numpy as np
from pydantic import Field

from u2net_tf import command
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.volumes import msd
from u2net_tf.wording import quantity


class SparseConfig(Config):
    """Settings of `tools.annotate_sparsely`."""

    raw_dir: str = Field(description="Folder of one dataset, with a dataset.json.")
    plan: str = Field(description="Plan that lists the training cases.")
    output_dir: str = Field(description="Folder to which the dataset is copied.")
    every: int = Field(4, ge=2, description="One slice in this many is annotated.")
    fill: Literal["ignore", "background"] = Field(
        "ignore", description="What the other slices become."
    )


def main(config: SparseConfig) -> None:
    """Writes the dataset."""
    dataset = msd.read_dataset(config.raw_dir)
    if dataset.ignore_label is not None:
        raise InputError(
            dataset.folder,
            expected="a dataset without an ignore label",
            received=dataset.ignore_label,
        )
    plan = load_plan(config.plan)
    training = plan.domain(dataset.name).with_fold(None).train
    folder = pathlib.Path(config.output_dir, dataset.name)
    if folder.exists():
        raise InputError(folder, expected="no such folder", received="one")
    value = 1 + max(dataset.labels) if config.fill == "ignore" else 0
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "imagesTr").mkdir()
    rows, kept, total = [], 0, 0
    for case in dataset.cases:
        images = [f"imagesTr/{path.name}" for path in case.image_paths]
        for path, name in zip(case.image_paths, images, strict=True):
            os.symlink(path, folder / name)
        labels = nib.load(case.label_path)
        array = np.asarray(labels.dataobj).copy()
        if case.name in training:
            is_annotated = np.arange(array.shape[2]) % config.every == config.every // 2
            kept, total = kept + is_annotated.sum(), total + is_annotated.size
            array[:, :, ~is_annotated] = value
        name = f"labelsTr/{case.name}.nii.gz"
        nib.save(nib.Nifti1Image(array, labels.affine, labels.header), folder / name)
        image = images[0] if len(images) == 1 else images
        rows.append({"image": image, "label": name})
    names = {str(number): name for number, name in dataset.labels.items()}
    if value:
        names[str(value)] = "ignore"
    content = {
        "modality": {str(i): name for i, name in enumerate(dataset.modalities)},
        "labels": names,
        "training": rows,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    print(
        f"{folder}: {kept} of {total} slices of "
        f"{quantity(len(training), 'training case')} annotated"
    )


def run() -> None:
    """Runs the command."""
    command.start(main, SparseConfig)


if __name__ == "__main__":
    run()
