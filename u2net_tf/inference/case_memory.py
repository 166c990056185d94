"""Estimates the memory that a case takes while it is predicted and written.

As in `volumes.preparation_memory`, the estimates are upper bounds, from shapes alone.
"""

from __future__ import annotations

import math

from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.crop_and_resample import ResampledCrop
from u2net_tf.volumes.preparation_memory import preparation_bytes

_FLOAT = 4
# Bytes per voxel while components are found (classes, masks and two label images of
# ITK) and while the label map is written (in int32 and as the bytes of the file).
_BYTES_FINISHED = 16
# Planes of probabilities that `Restoration` keeps, in both shapes.
_PLANES_RESTORED = 4
# Floats per voxel of a patch and channel at full resolution, while a network computes;
# measured by tools.bench.inference. A UNet# takes at most as many, or as many as the
# inputs of its last node, if they are more (tools.bench.sharp).
_FLOATS_PER_CHANNEL = 12
# Upper limit of how often an exported UNet# holds these inputs at the same time:
# up-sampled, joined, and laid out for the runtime.
_COPIES_EXPORTED = 3


def prediction_bytes(
    crop: ResampledCrop, domain: Domain, *, with_probabilities: bool = False
) -> float:
    """Estimates the peak bytes of a scan, without the network's computation.

    Args:
      crop: geometry of the crop and the resampling.
      domain: provides modalities, classes and patch size.
      with_probabilities: whether probabilities are kept and saved.
    """
    num_modalities, num_classes = domain.num_modalities, domain.num_classes
    depth, height, width = crop.shape
    raw = math.prod(crop.raw_shape)
    planes = min(depth, domain.patch_size[0])
    image = _FLOAT * num_modalities * depth * height * width
    # Including the sums of weights, and the classes on this grid.
    blended = (_FLOAT * planes * (num_classes + 1) + depth) * height * width
    raw_plane = crop.raw_shape[1] * crop.raw_shape[2]
    plane = _FLOAT * num_classes * (height * width + raw_plane)
    # As they are kept, in the axis order of the file, and as the bytes of the file.
    kept = 3 * _FLOAT * raw * num_classes if with_probabilities else 0
    scan = _FLOAT * num_modalities * raw
    return max(
        preparation_bytes(crop, num_modalities),
        scan + image + blended + _PLANES_RESTORED * plane + kept + raw,
        scan + _BYTES_FINISHED * raw + kept,
    )


def network_bytes(
    spec: ModelSpec, index: int, batch_size: int, *, is_exported: bool = False
) -> float:
    """Estimates the bytes of a network and of blending, for a batch of windows.

    Args:
      spec: the model.
      index: index of the domain.
      batch_size: windows per batch.
      is_exported: whether an exported graph is run.
    """
    domain = spec.plan.domains[index]
    window = math.prod(domain.patch_size)
    floats = _FLOATS_PER_CHANNEL
    if spec.depth is not None:
        # All inputs of X^{0,depth}: `depth` of level 0, and 2^k channels of level k.
        inputs = spec.depth + 2 ** (spec.depth + 1) - 2
        floats = max(floats, (_COPIES_EXPORTED if is_exported else 1) * inputs)
    channels = floats * spec.base_channels
    computed = channels * math.prod(spec.network_patch_size(index))
    # The output as logits, probabilities and resized probabilities; and the blending
    # weights, repeated for every class.
    input_and_output = (domain.num_modalities + 3 * domain.num_classes) * window
    weights = domain.num_classes * window
    return _FLOAT * (batch_size * (computed + input_and_output) + weights)
