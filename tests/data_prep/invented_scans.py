"""Arrays of synthetic scans."""

import numpy as np

SHAPE = (6, 10, 8)


def draw_image(seed):
    image = np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)
    image[:, 0] = 0
    return image


def make_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 2:6] = 1  # 36 voxels
    labels[5, 8, 6:8] = 1  # a separate component of two voxels
    return labels
