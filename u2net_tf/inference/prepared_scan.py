"""A scan as the network takes it, beside the volume that it was made of."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

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
    """A scan, ready for the network.

    Attributes:
      raw: the volume as it was read.
      image: (z, y, x, C) float32, preprocessed; None once `take_image` gave it away.
      crop: how the image was cropped and resampled from the raw volume.
    """

    raw: Volume
    image: np.ndarray | None
    crop: ResampledCrop

    def take_image(self) -> np.ndarray:
        """Gives the image away, so that it can be freed while the scan is in use."""
        image, self.image = self.image, None
        if image is None:
            raise ValueError("expected an image. Received: one that was taken before")
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
      raw: as `volumes.case.read_image` returns it.
      domain: gives the preprocessing.
      with_probabilities: whether its probabilities are to be kept.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if the image is constant between its percentiles, or its prediction
        does not fit into the memory.
    """
    crop = find_crop(raw, domain, max_memory_gb=max_memory_gb)
    require_memory(
        raw.grid.path,
        _prediction_bytes(crop, domain, with_probabilities),
        content=f"probabilities of {domain.num_classes} classes of shape {crop.shape}"
        + f" and of shape {crop.raw_shape}" * with_probabilities,
        max_memory_gb=max_memory_gb,
    )
    image, crop = preprocess_volume(raw, domain, crop=crop)
    return PreparedScan(raw, image, crop)


def _prediction_bytes(
    crop: ResampledCrop, domain: Domain, with_probabilities: bool
) -> float:
    """About what `predict_volume` and `Restoration` hold, and what is saved of it."""
    depth, height, width = crop.shape
    planes = min(depth, domain.patch_size[0])
    blended = 4 * planes * height * width * (domain.num_classes + 1)
    raw = math.prod(crop.raw_shape)
    # As they are kept, in the order of the file, and as its bytes.
    kept = 3 * 4 * raw * domain.num_classes if with_probabilities else 0
    return blended + kept + raw
