"""Patch size, pools and batch size of a domain's independent network.

Six tasks of the Medical Segmentation Decathlon have published settings (`PRESETS`);
`plan_network_settings` plans those of other domains. The rule, for each axis (z, y, x):

1.  An axis is as long as the median volume, at most 192 voxels.
2.  It is halved as long as its deepest feature map keeps 4 voxels, at most 5 times, and
    is rounded up to a multiple of 2 to the power of the number of halvings. A network
    needs a halving: if no axis is long enough, the longest one is halved once.
3.  While the patch has more than 128³ voxels (or than `max_patch_voxels`), its longest
    axis (the last of equally long ones) shrinks to the next smaller multiple, and
    halvings are counted again. Volumes larger than 128 along all axes thus get 128³,
    and thin ones keep their full depth.
4.  A batch has at most twice as many voxels and at most 5 % of the voxels of the
    domain's volumes, but at least two patches.

From the published median shapes and numbers of cases, this yields five of the six rows
of `PRESETS` exactly. It differs for Task02_Heart (median 115, 320, 232): 128, 128, 128
with pools 5, 5, 5, whereas the published patch is 80, 192, 128 with pools 4, 5, 5. That
patch keeps the aspect ratio of the median, while that of Task07_Pancreas (median 96,
512, 512), of the same budget, keeps the depth and gives up the ratio; no single rule
yields both.

Reference: 3D U²-Net, section 3, "Implementation details". Its text stops halving at 8
voxels, but its table requires 4. The limit of 5 % is not in its text; the published
batch sizes of hippocampus (9) and prostate (4) follow from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from data_prep.config import MAX_PATCH_VOXELS

Triple = tuple[int, int, int]

MAX_FULL_PATCHES_PER_BATCH = 2
MAX_AXIS = 192
MIN_AXIS = 4
MAX_POOLS = 5
MIN_BATCH = 2
# A batch has at most one part in this many of all voxels.
DATASET_PARTS = 20


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Settings of one independent network.

    Attributes:
      patch_size: (z, y, x), voxels.
      pools: halvings per axis.
      batch_size: patches.
    """

    patch_size: Triple
    pools: Triple
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Preset:
    """Published settings of a task.

    Attributes:
      network: settings of its network.
      merged_labels: name of a class -> the raw values that it merges.
    """

    network: NetworkSettings
    merged_labels: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=dict
    )


PRESETS: Mapping[str, Preset] = {
    "Task02_Heart": Preset(NetworkSettings((80, 192, 128), (4, 5, 5), 2)),
    "Task03_Liver": Preset(
        NetworkSettings((128, 128, 128), (5, 5, 5), 2), {"liver": (1, 2)}
    ),
    "Task04_Hippocampus": Preset(NetworkSettings((40, 56, 40), (3, 3, 3), 9)),
    "Task05_Prostate": Preset(NetworkSettings((20, 192, 192), (2, 5, 5), 4)),
    "Task07_Pancreas": Preset(
        NetworkSettings((96, 160, 128), (4, 5, 5), 2), {"pancreas": (1, 2)}
    ),
    "Task09_Spleen": Preset(NetworkSettings((96, 160, 128), (4, 5, 5), 2)),
}


def plan_network_settings(
    median_shape: Triple, *, num_cases: int, max_patch_voxels: int = MAX_PATCH_VOXELS
) -> NetworkSettings:
    """Returns settings for a domain without a preset; see the module's docstring.

    Args:
      median_shape: median shape (z, y, x) of the domain's volumes after resampling,
        voxels.
      num_cases: number of volumes.
      max_patch_voxels: maximum number of voxels of a patch.
    """
    size = [_rounded_up(min(length, MAX_AXIS)) for length in median_shape]
    while math.prod(size) > max_patch_voxels:
        axis = max(range(3), key=lambda a: (size[a], a))
        size[axis] -= 2 ** _num_pools(size[axis])
    voxels = num_cases * math.prod(median_shape)
    limit = min(MAX_FULL_PATCHES_PER_BATCH * max_patch_voxels, voxels // DATASET_PARTS)
    pools = [_num_pools(length) for length in size]
    if not any(pools):
        axis = max(range(3), key=lambda a: (size[a], a))
        size[axis] += size[axis] % 2
        pools[axis] = 1
    z, y, x = size
    return NetworkSettings(
        patch_size=(z, y, x),
        pools=(pools[0], pools[1], pools[2]),
        batch_size=max(MIN_BATCH, limit // math.prod(size)),
    )


def _num_pools(length: int) -> int:
    """Returns the number of times that an axis is halved: 0 to 5."""
    return max(
        pools
        for pools in range(MAX_POOLS + 1)
        if pools == 0 or length / 2**pools >= MIN_AXIS
    )


def _rounded_up(length: int) -> int:
    divisor = 2 ** _num_pools(length)
    return -(-length // divisor) * divisor
