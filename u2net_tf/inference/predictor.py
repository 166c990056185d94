"""Predicts label maps of scans with a network run by a backend, without TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from u2net_tf import files, work_log
from u2net_tf.config.inference import WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.inference.backend import Backend
from u2net_tf.inference.mirroring import MirroredBackend
from u2net_tf.inference.prepared_scan import PreparedScan, prepare_scan
from u2net_tf.inference.windows import count_windows, predict_volume
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes.boxes import Box
from u2net_tf.volumes.components import clean_labels
from u2net_tf.volumes.crop_and_resample import ResampledCrop
from u2net_tf.volumes.dicom_folder import list_dicom_files
from u2net_tf.volumes.grid import Volume
from u2net_tf.volumes.restoration import Restoration

# Up to this total of voxels in the windows of all scans, the network is not compiled: a
# compiled one takes half the time, but compiling takes longer than predicting them.
_FEW_VOXELS = 2**23


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction of one case, on the grid of its image.

    Attributes:
      classes: (z, y, x) uint8 class indices: the most probable class of each voxel,
        after the plan's postprocessing.
      probabilities: (z, y, x, K) float32, whose argmax are the `classes` before
        postprocessing; None unless requested.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None


class Predictor:
    """Predicts volumes with a sliding window.

    Args:
      backend: runs the network.
      overlap: fraction by which neighbouring windows overlap, from 0 to below 1.
      batch_size: windows per call of the network.
      skip_empty: whether `predict` skips windows in which every voxel of the raw scan
        is 0 in all modalities, and labels them background, like the voxels outside the
        crop. In Hounsfield units air is not 0, and nothing is skipped.
      keep_foreground_components: number of largest components of the foreground to
        keep; that of the plan if None.
      keep_components: number of largest components of each class to keep; those of the
        plan if None.
      progress: shows the progress over the windows of a volume.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        overlap: float = 0.5,
        batch_size: int = 1,
        skip_empty: bool = True,
        keep_foreground_components: int | None = None,
        keep_components: int | None = None,
        progress: Progress = silent,
    ):
        self.backend = backend
        self.overlap = overlap
        self.batch_size = batch_size
        self.skip_empty = skip_empty
        self.keep_foreground_components = keep_foreground_components
        self.keep_components = keep_components
        self._progress = progress

    @classmethod
    def of_settings(
        cls, backend: Backend, settings: WindowConfig, *, progress: Progress = silent
    ) -> Predictor:
        """Returns a predictor as defined by settings."""
        return cls(
            MirroredBackend(backend) if settings.test_time_mirroring else backend,
            overlap=settings.overlap,
            batch_size=settings.batch_size,
            skip_empty=settings.skip_empty,
            keep_foreground_components=settings.keep_foreground_components,
            keep_components=settings.keep_components,
            progress=progress,
        )

    @property
    def spec(self) -> ModelSpec:
        """Description of the model."""
        return self.backend.spec

    @property
    def plan(self) -> Plan:
        """The plan of its domains, in the order of their indices."""
        return self.spec.plan

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of its domains."""
        return self.plan.names

    @property
    def checkpoint(self) -> str:
        """Path of the weights; "" if they come from elsewhere."""
        return self.backend.checkpoint

    def key(
        self,
        domain: int,
        paths: Sequence[str | os.PathLike],
        *,
        channels: Sequence[int] = (),
        resample_modalities: bool = False,
    ) -> str:
        """Returns the key of a prediction from these files; see `work_log.work_key`.

        Args:
          domain: index of the domain.
          paths: files of a scan, and others that the outcome depends on.
          channels: indices of the domain's modalities among those of the scan; empty if
            they are the first ones, in order.
          resample_modalities: whether some of several files may be resampled.
        """
        found: list[pathlib.Path] = []
        # Absolute, so that the key does not depend on the working directory.
        for path in (pathlib.Path(path).resolve() for path in paths):
            # For a DICOM folder, each slice; its label map may be in the same folder.
            found += list_dicom_files(path) if path.is_dir() else [path]
        name = self.spec.plan.names[domain]
        settings = [self.backend.fingerprint, self.overlap, self.skip_empty, name]
        # Label maps of release 0.1.0 were restored by nearest neighbour.
        settings.append("linear")
        # Not recorded for the first ones in order, as in files of earlier releases.
        if tuple(channels) != tuple(range(len(channels))):
            settings.append(list(channels))
        if resample_modalities:
            settings.append("resample modalities")
        if self.keep_foreground_components is not None:
            settings.append(f"keep_foreground={self.keep_foreground_components}")
        if self.keep_components is not None:
            settings.append(f"keep={self.keep_components}")
        return work_log.work_key(
            [*settings, *map(str, found)], files.file_signatures(found)
        )

    def probabilities(self, image: np.ndarray, domain: int) -> np.ndarray:
        """Returns the class probabilities of a preprocessed volume.

        Args:
          image: (z, y, x, C) float32 at the domain's spacing, standardized.
          domain: index of the domain.

        Returns:
          (z, y, x, K) float32.
        """
        _, probabilities = self._predict_volume(image, domain, with_probabilities=True)
        assert probabilities is not None  # since they were requested
        return probabilities

    def classes(self, image: np.ndarray, domain: int) -> np.ndarray:
        """Returns the class indices of a preprocessed volume, without postprocessing.

        Args:
          image: see `probabilities`.
          domain: index of the domain.

        Returns:
          (z, y, x) uint8.
        """
        return self._predict_volume(image, domain)[0]

    def predict(
        self,
        image: Volume,
        domain: int,
        *,
        with_probabilities: bool = False,
        max_memory_gb: float | None = None,
    ) -> Prediction:
        """Predicts a raw volume on its own grid.

        Args:
          image: as returned by `volumes.case.read_image`.
          domain: index of the domain.
          with_probabilities: whether to keep the probabilities.
          max_memory_gb: see `memory.require_memory`.

        Raises:
          InputError: if the image is constant between its percentiles or too large.
        """
        scan = prepare_scan(
            image,
            self.spec.plan.domains[domain],
            with_probabilities=with_probabilities,
            max_memory_gb=max_memory_gb,
        )
        return self.predict_prepared(
            scan, domain, with_probabilities=with_probabilities
        )

    def predict_prepared(
        self,
        scan: PreparedScan,
        index: int,
        *,
        with_probabilities: bool = False,
        num_scans: int | None = None,
    ) -> Prediction:
        """Predicts a scan that is already preprocessed; otherwise like `predict`.

        Args:
          scan: as returned by `prepare_scan`. Its image is released.
          index: index of the domain.
          with_probabilities: whether to keep the probabilities.
          num_scans: total number of scans that are predicted; None for many.

        Raises:
          InputError: if the network returns NaN or infinite values.
        """
        domain = self.spec.plan.domains[index]
        restoration = Restoration(
            scan.crop, domain.num_classes, with_probabilities=with_probabilities
        )
        self._predict_volume(
            scan.take_image(),
            index,
            scan=scan.raw.grid.path,
            num_scans=num_scans,
            is_empty=_emptiness(scan.raw, scan.crop) if self.skip_empty else None,
            on_plane=restoration.add,
        )
        classes, probabilities = restoration.finish()
        return Prediction(self._keep_largest(classes, domain), probabilities)

    def _keep_largest(self, classes: np.ndarray, domain: Domain) -> np.ndarray:
        """Removes small components on the raw grid, where the survey measured them."""
        foreground = self.keep_foreground_components
        if foreground is None:
            # All components are kept if the user asks for it.
            keeps_all = self.keep_components == 0
            foreground = 0 if keeps_all else domain.keep_foreground_components
        if self.keep_components is None:
            each = [label.keep_components for label in domain.labels]
        else:
            each = [self.keep_components] * domain.num_classes
        return clean_labels(classes, each, keep_foreground_components=foreground)

    def _are_few(self, image: np.ndarray, index: int, num_scans: int) -> bool:
        """Returns whether the network need not be compiled for such scans.

        This must not depend on what is already predicted or left to do, since the last
        bits differ between both ways.
        """
        patch_size = self.spec.plan.domains[index].patch_size
        number = num_scans * count_windows(image.shape[:3], patch_size, self.overlap)
        return number * math.prod(self.spec.network_patch_size(index)) <= _FEW_VOXELS

    def _predict_volume(
        self,
        image: np.ndarray,
        index: int,
        *,
        scan: str = "",
        num_scans: int | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        domain = self.spec.plan.domains[index]
        few = num_scans is not None and self._are_few(image, index, num_scans)

        def predict(windows: np.ndarray) -> np.ndarray:
            predicted = self.backend.predict_windows(windows, index, few=few)
            # Voxels without a most probable class would become background. The sum is
            # finite only if all are.
            if scan and not np.isfinite(predicted.sum()):
                raise InputError(
                    scan,
                    expected="finite class probabilities",
                    received="NaN or infinite values from the network",
                    hint="Check the intensities of the scan, and the precision",
                )
            return predicted

        return predict_volume(
            image,
            predict,
            patch_size=domain.patch_size,
            num_classes=domain.num_classes,
            overlap=self.overlap,
            batch_size=self.batch_size,
            progress=self._progress,
            **options,
        )


def _emptiness(image: Volume, crop: ResampledCrop) -> Callable[[Box], bool]:
    """Returns a function: is the raw scan 0 everywhere within a preprocessed box?

    It checks plane by plane, since the first plane usually decides.
    """

    def is_empty(box: Box) -> bool:
        raw = crop.raw_box(box)
        return not any(plane.any() for data in image.data for plane in data[raw])

    return is_empty
