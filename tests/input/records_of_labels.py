"""Parsed records made from a label map."""

import numpy as np
import tensorflow as tf


def make_fields(labels, num_classes=3, channels=2):
    """A record of these labels; the intensity of each voxel is its index."""
    labels = np.asarray(labels, np.uint8)
    image = np.arange(labels.size * channels, dtype=np.float32)
    groups = [np.argwhere(labels == k) for k in range(1, num_classes)]
    return {
        "image": tf.constant(image.reshape(*labels.shape, channels)),
        "labels": tf.constant(labels),
        "label_counts": tf.constant(
            np.bincount(labels.ravel(), minlength=num_classes), tf.int64
        ),
        "coordinates": tf.constant(np.concatenate(groups), tf.int32),
        "coordinate_counts": tf.constant([0, *map(len, groups)], tf.int64),
    }
