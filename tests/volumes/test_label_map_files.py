from typing import get_args

import pytest

from u2net_tf.config.inference import OutputFormat
from u2net_tf.volumes import label_map_files


def test_every_output_format_has_a_suffix():
    assert get_args(OutputFormat) == tuple(label_map_files.OUTPUT_SUFFIXES)


@pytest.mark.parametrize(
    ("path", "output_format", "suffix"),
    [
        ("a.nii", "input", ".nii.gz"),
        ("a.nii.gz", "input", ".nii.gz"),
        ("series", "input", ".nii.gz"),
        ("a.NRRD", "input", ".nrrd"),
        ("a.mha", "input", ".mha"),
        ("a.mha", "nii", ".nii"),
        ("a.nii.gz", "nrrd", ".nrrd"),
        ("a.nrrd", "nifti", ".nii.gz"),
        ("a.nrrd", "seg_nrrd", ".seg.nrrd"),
        ("series", "dicom_seg", ".dcm"),
    ],
)
def test_output_suffix(path, output_format, suffix):
    assert label_map_files.output_suffix(path, output_format) == suffix


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [(".nii", ".nii"), (".seg.nrrd", ".nrrd"), (".dcm", ".nii.gz")],
)
def test_probabilities_suffix(suffix, expected):
    assert label_map_files.probabilities_suffix(suffix) == expected
