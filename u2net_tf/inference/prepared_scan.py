"""A preprocessed scan, together with the volume that was read."""

from __future__ import annotations

import dataclasses

import numpy as np

from u2net_tf.inference.case_memory import prediction_bytes
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.crop_and_resample import (
    ResampledCrop,
    find_crop,
    preprocess_volume,
)
from u2net_tf.volumes.grid import Volume
from u2net_tf.volumes.memory import require_memory


@dataclasses.dataclass
class PreparedScan:
    """A preprocessed scan.

    Attributes:
      raw: the volume as it was read.
      image: (z, y, x, C) float32, preprocessed; None after `take_image`.
      crop: geometry of the crop and the resampling of the raw volume.
    """

    raw: Volume
    image: np.ndarray | None
    crop: ResampledCrop

    def take_image(self) -> np.ndarray:
        """Returns and releases the image, so that it can be freed before the scan."""
        image, self.image = self.image, None
        if image is None:
            raise ValueError("expected an image. Received: one that was already taken")
        return image


def prepare_scan(
    raw: Volume,
    domain: Domain,
    *,
    with_probabilities: bool = False,
    max_memory_gb: float | None = None,
) -> PreparedScan:
    """Preprocesses a volume.

    Args:
      raw: as returned by `volumes.case.read_image`.
      domain: defines the preprocessing.
      with_probabilities: whether its probabilities will be kept.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if the image is constant between its percentiles, or its prediction
        does not fit into the memory.
    """
    crop = find_crop(raw, domain, max_memory_gb=max_memory_gb)
    require_memory(
        raw.grid.path,
        prediction_bytes(crop, domain, with_probabilities=with_probabilities),
        content=f"a scan of shape {crop.raw_shape} and probabilities of "
        f"{domain.num_classes} classes of shape {crop.shape}"
        + f" and of shape {crop.raw_shape}"
        * with_probabilities,
        max_memory_gb=max_memory_gb,
    )
    image, crop = preprocess_volume(raw, domain, crop=crop)
    return PreparedScan(raw, image, crop)
