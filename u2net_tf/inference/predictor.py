"""From a scan to a label map, with a trained network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from u2net_tf import files
from u2net_tf.inference.windows import Box, predict_volume
from u2net_tf.models.loading import load_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.ops.resizing import resize_image
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes.components import clean_labels
from u2net_tf.volumes.crop_and_resample import (
    Placement,
    restore_labels,
    restore_probabilities,
)
from u2net_tf.volumes.nifti import Volume


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What was predicted for one case, on the grid of its image.

    Attributes:
      classes: (z, y, x) uint8 class indices, cleaned up as the plan says.
      probabilities: (z, y, x, K) float32 before the clean-up; None unless asked for.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None


class Predictor:
    """Predicts volumes with a sliding window of half a patch.

    Args:
      network: a `U2Net` with its weights.
      spec: what it is.
      overlap: of neighbouring windows, 0 to below 1.
      batch_size: windows per call of the network.
      skip_empty: whether `predict` takes windows for background, and does not ask the
        network, in which every voxel of the raw scan is 0 in all modalities.
        Preprocessing crops such voxels away around the scan, and `restore_labels` makes
        them background. In Hounsfield units air is not 0 and nothing is skipped.
      fingerprint: of everything else that predictions depend on: weights, precision.
      checkpoint: path of the weights; "" if they come from elsewhere.
      progress: shows how many windows of a volume are done.
    """

    def __init__(
        self,
        network,
        spec: ModelSpec,
        *,
        overlap: float = 0.5,
        batch_size: int = 1,
        skip_empty: bool = True,
        fingerprint: str = "",
        checkpoint: str = "",
        progress: Progress = silent,
    ):
        self.network = network
        self.spec = spec
        self.overlap = overlap
        self.skip_empty = skip_empty
        self.checkpoint = checkpoint
        self._fingerprint = fingerprint
        self._batch_size = batch_size
        self._progress = progress
        self._predict_windows = functools.cache(self._make_predict_windows)

    @classmethod
    def from_model_dir(
        cls,
        model_dir: str | os.PathLike,
        *,
        checkpoint: str = "newest",
        precision: str = "float32",
        **kwargs,
    ) -> Predictor:
        """Loads a checkpoint.

        Args:
          model_dir: folder that training wrote.
          checkpoint: see `load_network`.
          precision: see `load_network`.
          **kwargs: as for the class.

        Raises:
          InputError: if there is no whole checkpoint.
        """
        spec, network, path = load_network(
            model_dir, checkpoint=checkpoint, precision=precision
        )
        # The plan lies in the checkpoint, so this covers the plan, too.
        index = pathlib.Path(f"{path}.index").read_bytes()
        fingerprint = f"{hashlib.sha256(index).hexdigest()} {precision}"
        return cls(network, spec, fingerprint=fingerprint, checkpoint=path, **kwargs)

    def key(self, domain: int, paths: Sequence[str | os.PathLike]) -> str:
        """Changes whenever what is predicted from these files would.

        Args:
          domain: index of the domain.
          paths: of a scan, and of whatever else the outcome depends on.
        """
        found: list[pathlib.Path] = []
        # Absolute: the same scan, from whatever folder it is named.
        for path in (pathlib.Path(path).resolve() for path in paths):
            # Of a DICOM folder, each slice.
            found += sorted(path.iterdir()) if path.is_dir() else [path]
        name = self.spec.plan.names[domain]
        settings = [self._fingerprint, self.overlap, self.skip_empty, name]
        text = json.dumps([*settings, *map(str, found), files.stamps(found)])
        return hashlib.sha256(text.encode()).hexdigest()

    def probabilities(self, image: np.ndarray, domain: int) -> np.ndarray:
        """Class probabilities of a preprocessed volume.

        Args:
          image: (z, y, x, C) float32 at the domain's spacing, standardized.
          domain: index of the domain.

        Returns:
          (z, y, x, K) float32.
        """
        return self._predict_volume(image, domain, with_probabilities=True)[1]

    def classes(self, image: np.ndarray, domain: int) -> np.ndarray:
        """Class indices of a preprocessed volume, not cleaned up.

        Args:
          image: as for `probabilities`.
          domain: index of the domain.

        Returns:
          (z, y, x) uint8.
        """
        return self._predict_volume(image, domain)[0]

    def predict(
        self, image: Volume, domain: int, *, with_probabilities: bool = False
    ) -> Prediction:
        """Predicts a raw volume on its own grid.

        Args:
          image: as `volumes.case.read_image` returns it.
          domain: index of the domain.
          with_probabilities: whether to keep them.

        Raises:
          InputError: if the image is constant between its percentiles.
        """
        plan = self.spec.plan.domains[domain]
        prepared, placement = case_files.preprocess_case(image, plan)
        classes, probabilities = self._predict_volume(
            prepared,
            domain,
            is_empty=_emptiness(image, placement) if self.skip_empty else None,
            with_probabilities=with_probabilities,
        )
        # Not held any longer while label map and probabilities are restored.
        del prepared
        classes = clean_labels(
            classes, [label.keep_components for label in plan.labels]
        )
        return Prediction(
            classes=restore_labels(classes, placement),
            probabilities=(
                restore_probabilities(probabilities, placement)
                if with_probabilities
                else None
            ),
        )

    def _predict_volume(self, image: np.ndarray, domain: int, **options):
        plan = self.spec.plan.domains[domain]
        return predict_volume(
            image,
            self._predict_windows(domain),
            patch_size=plan.patch_size,
            num_classes=plan.num_classes,
            overlap=self.overlap,
            batch_size=self._batch_size,
            progress=self._progress,
            **options,
        )

    def _make_predict_windows(self, domain: int) -> Callable[[np.ndarray], np.ndarray]:
        """Windows of the domain's patch size -> their probabilities."""
        plan = self.spec.plan.domains[domain]
        size = self.spec.network_patch_size(domain)
        signature = tf.TensorSpec([None, *plan.patch_size, plan.num_modalities])

        @tf.function(input_signature=[signature])
        def predict_windows(windows: tf.Tensor) -> tf.Tensor:
            patches = resize_image(windows, size, method=self.spec.resize_method)
            logits = self.network(patches, domain=domain, training=False)
            probabilities = tf.nn.softmax(logits)
            # Linear whatever the image's method: cubic leaves the range 0 to 1.
            return resize_image(probabilities, plan.patch_size, method="linear")

        # On a CPU this is the tensor's own memory; `numpy` would copy it.
        return lambda windows: np.asarray(predict_windows(windows))


def _emptiness(image: Volume, placement: Placement) -> Callable[[Box], bool]:
    """Whether the raw scan holds nothing but 0 where a preprocessed box lies.

    Plane by plane, for then the first plane mostly tells.
    """

    def is_empty(box: Box) -> bool:
        raw = placement.raw_box(box)
        return not any(plane.any() for data in image.data for plane in data[raw])

    return is_empty
