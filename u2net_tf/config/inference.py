"""Settings of the commands that use a trained model."""

from __future__ import annotations

import os
from typing import Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.config.compute import Precision
from u2net_tf.config.log import LogConfig
from u2net_tf.config.modalities import ResampleModalities
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Split
from u2net_tf.plan.limits import Depth

# What can run a model; "auto" for what it needs and is installed.
Runtime = Literal["auto", "openvino", "onnxruntime", "tensorflow"]
OutputFormat = Literal[
    "input", "nifti", "nii.gz", "nii", "nrrd", "mha", "seg_nrrd", "dicom_seg"
]


class WindowConfig(Config):
    """How a model predicts."""

    overlap: float = Field(
        0.5,
        ge=0,
        le=0.95,
        description="Share of a window that the next one covers again.",
    )
    batch_size: int = Field(
        1, ge=1, description="Windows that the network sees at once."
    )
    skip_empty: bool = Field(
        True,
        description="Take windows for background in which every voxel of the scan is "
        "exactly 0, and do not ask the network.",
    )
    precision: Precision = Field("float32", description="What the network computes in.")
    checkpoint: str = Field(
        "newest",
        description="Of those that training kept: newest (that is whole), best (by the "
        "Dice of the validations or, without them, by the loss's moving average) or "
        "step-N.",
    )
    prune_to: Depth | None = Field(
        None,
        description="Depth L to which a unet_sharp is pruned: its head on X^{0,L} "
        "predicts, and nodes that it does not need are neither loaded nor computed. "
        "The whole network if not given.",
    )
    gate_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Take a class for absent from a window unless the gates of a "
        "unet_sharp find it there with at least this probability; its own is 0 in all "
        "voxels of the window then. If not given, gates are not computed.",
    )


class ReadingConfig(Config):
    """How scans are read."""

    num_workers: int = Field(
        1,
        ge=0,
        description="Scans to read and preprocess ahead while another one is "
        "predicted, a thread each; each needs memory for a scan. 0 reads none ahead.",
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "skip",
        description="Stop at an unusable case, or list it at the end, continue and "
        "exit with status 1. Headers are read before the first case is predicted.",
    )
    resample_modalities: ResampleModalities = False
    max_memory_gb: float | None = Field(
        None,
        gt=0,
        description="Limit to the memory of the process, GB, half of the machine's if "
        "not given: a scan that needs more than program and network leave of it is "
        "refused before anything is allocated, and no more scans are read ahead than "
        "fit.",
    )


class EvaluateConfig(Config):
    """Settings of `u2net_tf.evaluate`."""

    model_dir: str = Field(description="Folder that training wrote.")
    output_dir: str | None = Field(
        None,
        description="Folder for scores and predictions; MODEL_DIR/SPLIT if empty.",
    )
    raw_dir: str | None = Field(
        None,
        description="Folder with a folder per domain, if the scans have moved since "
        "the survey.",
    )
    domains: tuple[str, ...] = Field((), description="Domains to score; all if empty.")
    split: Split = Field("test", description="Cases to score.")
    plan: str | None = Field(
        None,
        description="Plan that lists the cases, for models that do not name them, as "
        "those of compose, or to score others; the model's own if not given.",
    )
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of that plan whose cases are the validation split; if not "
        "given, the training cases are those of all folds.",
    )
    overwrite: bool = Field(
        False,
        description="Predict and score every case again, and write over label maps "
        "that were edited.",
    )
    windows: WindowConfig = WindowConfig()
    reading: ReadingConfig = ReadingConfig()
    log: LogConfig = LogConfig()


class PredictConfig(Config):
    """Settings of `u2net_tf.predict`."""

    model: str = Field(
        description="A folder that training, adapt or compose wrote; a .u2net file, "
        "which pack wrote; or what export wrote: a SavedModel, an .onnx or .xml file, "
        "or a folder of such files.",
        json_schema_extra={"alias": "model_dir"},
    )
    runtime: Runtime = Field(
        "auto",
        description="What runs the model: tensorflow a folder of training or a "
        "SavedModel, openvino .xml, .onnx and .u2net files, onnxruntime the last two; "
        "auto the first of these that is installed.",
    )
    domain: str | None = Field(None, description="Domain of the model to predict with.")
    domains: tuple[str, ...] = Field(
        (),
        description="Instead of domain, several domains, or all: each scan is read "
        "once, and its label map has the classes of all of them. CASE_labels.json "
        "says which value is which class.",
    )
    priority: tuple[str, ...] = Field(
        (),
        description="Of these domains, those that hide others where they overlap, the "
        "first one most. The rest follows in the order of domains.",
    )
    separate_files: bool = Field(
        False,
        description="Write the files of each of these domains into OUTPUT/DOMAIN "
        "instead, as with domain.",
    )
    modalities: tuple[str, ...] = Field(
        (),
        description="Modalities of the scans, in the order of their files or channels, "
        "for several domains; those of the domain with most of them if empty.",
    )
    input: tuple[str, ...] = Field(
        (),
        description="A file (.nii.gz, .nii, .nrrd, .mha, or DICOM of several frames), "
        "a DICOM folder, or a folder of files or DICOM folders; or, given several "
        "times or separated by commas, one file or DICOM folder per modality of one "
        "case.",
        json_schema_extra={"repeated": True},
    )
    input_list: str | None = Field(
        None,
        description="Instead of input, a file that names scans: a path a line, or a "
        ".csv table with the columns case and one per modality. Paths are relative to "
        "its folder.",
    )
    output: str = Field(description="Folder for the label maps.")
    save_probabilities: bool = Field(
        False,
        description="Also write CASE_probabilities, in the format of the label map: a "
        "component of each voxel per class, which in NIfTI is a fourth axis.",
    )
    preview: bool = Field(
        False,
        description="Also write CASE_preview.png: an axial, a coronal and a sagittal "
        "slice with the outlines and names of the classes.",
    )
    output_format: OutputFormat = Field(
        "input",
        description="Format of the label maps; that of the scan if input, and .nii.gz "
        "for NIfTI and DICOM. seg_nrrd is 3D Slicer's .seg.nrrd, dicom_seg a DICOM "
        "segmentation (.dcm) of DICOM scans, and nifti .nii.gz.",
    )
    volumes_csv: str | None = Field(
        None,
        description="Table to write of the volume, in ml, of each class in each label "
        "map; none if not given.",
    )
    overwrite: bool = Field(
        False, description="Predict all scans, and replace any file."
    )
    windows: WindowConfig = WindowConfig()
    reading: ReadingConfig = ReadingConfig()
    log: LogConfig = LogConfig()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        table, scans = self.volumes_csv, self.input_list
        if table and scans and os.path.realpath(table) == os.path.realpath(scans):
            raise InputError(
                "`volumes_csv`",
                expected="another file than `input_list`",
                received=table,
            )
        return self


class ComposeConfig(Config):
    """Settings of `u2net_tf.compose`."""

    models: tuple[str, ...] = Field(
        description="Folders of models whose shared variables are the same."
    )
    remove: tuple[str, ...] = Field((), description="Domains to leave out.")
    prune_to: Depth | None = Field(
        None,
        description="Depth L to which a unet_sharp is pruned: the new model holds only "
        "the head on X^{0,L} and the nodes that it needs.",
    )
    model_dir: str = Field(description="Folder for the new model.")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise InputError(
                "`models`", expected="each once", received=",".join(self.models)
            )
        return self


class DescribeConfig(Config):
    """Settings of `u2net_tf.describe`."""

    model: str = Field(
        description="Folder that training wrote, one of its checkpoints, or a model "
        "file (.u2net).",
        json_schema_extra={"positional": True},
    )
    json_: bool = Field(False, description="Print JSON.")
