"""The segmentation of one image, in memory."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.inference.predictor import Prediction
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import case_labels, dicom_segmentation, label_map_files
from u2net_tf.volumes.class_volumes import volumes_ml
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.grid import Grid


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of one image.

    Arrays are aligned with the voxels of the image as its file stores them: (z, y, x),
    as SimpleITK's `GetArrayFromImage` returns them; the transpose of an array is in
    nibabel's order.

    Attributes:
      domain: the domain, with its classes.
      grid: the voxel grid of the image.
      warnings: properties of the image that are unusual for the domain, or that its
        file leaves open.
    """

    domain: Domain
    grid: Grid
    warnings: tuple[str, ...]
    _prediction: Prediction = dataclasses.field(repr=False)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """(z, y, x) label values, int32 (int64 if a value needs that).

        `class_values` lists the value of each class; 0 is the background.
        """
        return case_labels.raw_labels(
            self._in_file_order(self._prediction.classes), self.domain
        )

    @property
    def probabilities(self) -> np.ndarray | None:
        """(z, y, x, K) float32 class probabilities, the background's first.

        None unless they were requested.
        """
        found = self._prediction.probabilities
        if found is None:
            return None
        return np.stack(
            [self._in_file_order(one) for one in np.moveaxis(found, 3, 0)], axis=-1
        )

    @property
    def class_values(self) -> Mapping[str, int]:
        """Name of each class except the background -> its value in `labels`."""
        return {label.name: label.values[0] for label in self.domain.labels[1:]}

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel indices (x, y, z) -> mm, RAS+, as nibabel's."""
        return self.grid.affine

    @functools.cached_property
    def volumes_ml(self) -> Mapping[str, float]:
        """Name of each class except the background -> its volume, in ml."""
        return volumes_ml(self._prediction.classes, self.grid, self.domain)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the label map; an existing file is replaced.

        Args:
          path: the file. Its extension determines the format: `.nii.gz`, `.nii`,
            `.nrrd`, `.mha`, `.seg.nrrd` (3D Slicer), or `.dcm`, a DICOM segmentation,
            if the image is a DICOM series.

        Raises:
          InputError: if the format cannot store the label map.
          StoppedError: if a package is missing that the format needs.
        """
        if str(path).lower().endswith(dicom_segmentation.SUFFIX) and not is_dicom(
            self.grid.path
        ):
            raise InputError(
                "`path`",
                expected="a different suffix, as the image is not a DICOM series",
                received=path,
            )
        label_map_files.require_format_for(self.grid, path)
        label_map_files.save_label_map(
            path, self._prediction.classes, self.grid, self.domain
        )

    def _in_file_order(self, array: np.ndarray) -> np.ndarray:
        return self.grid.from_canonical(array).T
