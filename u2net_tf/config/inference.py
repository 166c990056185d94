"""Settings of prediction, and of the commands that compose and describe models."""

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
from u2net_tf.config.network import PRUNE_TO
from u2net_tf.errors import InputError
from u2net_tf.plan.limits import Depth

# "auto" is the first runtime that reads the model's format and is installed.
Runtime = Literal["auto", "openvino", "onnxruntime", "tensorflow"]
OutputFormat = Literal[
    "input", "nifti", "nii.gz", "nii", "nrrd", "mha", "seg_nrrd", "dicom_seg"
]


class WindowConfig(Config):
    """Sliding-window prediction."""

    overlap: float = Field(
        0.5,
        ge=0,
        le=0.95,
        description="Overlap of neighbouring windows, as a fraction of the window "
        "size.",
    )
    batch_size: int = Field(1, ge=1, description="Windows per batch.")
    skip_empty: bool = Field(
        True,
        description="Skip windows in which every voxel of the scan is exactly 0, and "
        "label them background.",
    )
    test_time_mirroring: bool = Field(
        False,
        description="Predict every window also mirrored along each of the plan's "
        "mirror axes and each combination of them, and average the probabilities. Each "
        "axis doubles the time.",
    )
    precision: Precision = Field("float32", description="Precision of the computation.")
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to load: newest (the newest intact one), best (by "
        "validation Dice or, without validation cases, by the moving average of the "
        "loss) or step-N.",
    )
    prune_to: Depth | None = PRUNE_TO
    gate_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Lowest gate probability at which a class of a UNet# counts as "
        "present in a window; the probability of an absent class is 0 in all voxels "
        "of the window. If not given, gates are not computed.",
    )
    keep_foreground_components: int | None = Field(
        None,
        ge=0,
        description="Number of largest connected components of the foreground to keep "
        "(all classes together), before those of each class; 0 keeps all. As in the "
        "model's plan if not given.",
    )
    keep_components: int | None = Field(
        None,
        ge=0,
        description="Number of largest connected components of each class to keep; 0 "
        "keeps all, and those of the foreground unless their number is given. As in "
        "the model's plan if not given.",
    )

    @property
    def postprocessing(self) -> dict[str, int]:
        """The settings that replace those of the model's plan."""
        settings = {
            "keep_foreground_components": self.keep_foreground_components,
            "keep_components": self.keep_components,
        }
        return {name: value for name, value in settings.items() if value is not None}


class ReadingConfig(Config):
    """How scans are read."""

    num_workers: int = Field(
        1,
        ge=0,
        description="Threads that read and preprocess the next scans during "
        "prediction, each with one scan in memory; 0 reads no scans ahead.",
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "skip",
        description="Stop at an unusable case (fail), or continue, list it at the end "
        "and exit with status 1 (skip). Headers are checked before the first case is "
        "predicted.",
    )
    resample_modalities: ResampleModalities = False
    max_memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory limit of the process, GB; half of the machine's memory if "
        "not given. Scans that do not fit next to the program and the network are "
        "refused before anything is allocated; if several scans do not fit together, "
        "fewer are read ahead.",
    )


class PredictConfig(Config):
    """Settings of `u2net_tf.predict`."""

    model: tuple[str, ...] = Field(
        description="Model to predict with: a folder written by train, adapt or "
        "compose, a .u2net file written by pack, an export (a SavedModel, an .onnx or "
        ".xml file, or a folder of such files), or the name of a model that comes with "
        "the package (hippocampus). Several values, separated by commas, are models of "
        "the same domain, whose probabilities are averaged.",
        json_schema_extra={"alias": "model_dir"},
    )
    runtime: Runtime = Field(
        "auto",
        description="Runtime that executes the model: tensorflow for model folders "
        "and SavedModels, openvino for .xml, .onnx and .u2net files, onnxruntime for "
        ".onnx and .u2net files. auto uses the first that supports the model and is "
        "installed.",
    )
    domain: str | None = Field(
        None, description="Domain to predict; required unless domains is given."
    )
    domains: tuple[str, ...] = Field(
        (),
        description="Several domains to predict, or all, instead of domain. Each scan "
        "is read once, and its label map has the classes of all these domains; "
        "CASE_labels.json maps values to classes.",
    )
    priority: tuple[str, ...] = Field(
        (),
        description="Domains whose classes take precedence where several domains "
        "overlap, highest priority first. The others follow in the order of domains.",
    )
    separate_files: bool = Field(
        False,
        description="With several domains, write the files of each to OUTPUT/DOMAIN, "
        "as when it is predicted alone, instead of merging their label maps.",
    )
    modalities: tuple[str, ...] = Field(
        (),
        description="Modalities of the scans if several domains are predicted, in the "
        "order of the files or channels; if empty, those of the domain with the most "
        "modalities.",
    )
    input: tuple[str, ...] = Field(
        (),
        # absl appends "; repeat this option", so the text has no full stop.
        description="Scan or folder of scans: a file (.nii.gz, .nii, .nrrd, .mha or "
        "multi-frame DICOM), a DICOM folder, or a folder of such files or folders. "
        "Several values, repeated or separated by commas, are the modalities of a "
        "single case, one file or DICOM folder each",
        json_schema_extra={"repeated": True},
    )
    input_list: str | None = Field(
        None,
        description="File that lists the scans, as an alternative to input: one path "
        "per line, or a CSV table with a column case and a column per modality. Paths "
        "are relative to the folder of the file.",
    )
    num_parts: int = Field(
        1,
        ge=1,
        description="Number of parts that the scans are divided into, to predict them "
        "with several commands, for example on several GPUs. All of them may write to "
        "the same output.",
    )
    part_id: int | None = Field(
        None,
        ge=0,
        description="Part that this command predicts, from 0 to num_parts - 1; "
        "required with several parts.",
    )
    output: str = Field(description="Folder for the label maps.")
    save_probabilities: bool = Field(
        False,
        description="Also write CASE_probabilities, in the format of the label map, "
        "with a component per class in each voxel (the fourth axis in NIfTI).",
    )
    preview: bool = Field(
        False,
        description="Also write CASE_preview.png: an axial, a coronal and a sagittal "
        "slice with outlines and names of the classes.",
    )
    output_format: OutputFormat = Field(
        "input",
        description="Format of the label maps. input is the format of the scan, or "
        ".nii.gz for NIfTI and DICOM scans; nifti is .nii.gz; seg_nrrd is 3D Slicer's "
        ".seg.nrrd; dicom_seg is DICOM Segmentation (.dcm), for DICOM scans only.",
    )
    volumes_csv: str | None = Field(
        None,
        description="CSV table to write, with the volume (ml) of each class in each "
        "label map.",
    )
    overwrite: bool = Field(
        False, description="Predict all scans again, and replace any existing file."
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
                expected="a file other than `input_list`",
                received=table,
            )
        self._check_part()
        return self

    def _check_part(self) -> None:
        is_missing = self.part_id is None and self.num_parts > 1
        if is_missing or (self.part_id or 0) >= self.num_parts:
            raise InputError(
                "`part_id`",
                expected=f"a part from 0 to {self.num_parts - 1}, since `num_parts` "
                f"is {self.num_parts}",
                received="none" if is_missing else self.part_id,
            )
        if self.volumes_csv and self.num_parts > 1:
            raise InputError(
                "`volumes_csv`",
                expected="no table with several parts, since each would replace it",
                received=self.volumes_csv,
                hint="Run the command without `num_parts` once all parts are predicted",
            )


class ComposeConfig(Config):
    """Settings of `u2net_tf.compose`."""

    models: tuple[str, ...] = Field(
        description="Folders of models that have the same shared variables."
    )
    remove: tuple[str, ...] = Field(
        (), description="Domains to leave out of the new model."
    )
    prune_to: Depth | None = PRUNE_TO
    model_dir: str = Field(description="Folder for the new model.")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise InputError(
                "`models`", expected="distinct values", received=",".join(self.models)
            )
        return self


class DescribeConfig(Config):
    """Settings of `u2net_tf.describe`."""

    model: str = Field(
        description="Folder of a model, one of its checkpoints, a model file "
        "(.u2net), or the name of a model that comes with the package (hippocampus).",
        json_schema_extra={"positional": True},
    )
    json_: bool = Field(False, description="Print the description as JSON.")
