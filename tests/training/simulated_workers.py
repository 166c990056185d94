"""One of several workers; what the others gather is set by a test."""

import numpy as np

from u2net_tf.training.cluster import Cluster
from u2net_tf.training.workers import Workers

ADDRESSES = ("one:1", "two:1", "three:1")


class Simulated(Workers):
    """One of three workers; the others gather what a test sets.

    Attributes:
      others: results of `gather` for the two others, in the order of the calls.
    """

    def __init__(self, index=0, others=()):
        super().__init__(Cluster(ADDRESSES, index))
        self.others = list(others)
        self.calls = []

    def gather(self, values):
        self.calls.append(list(values))
        rows = [list(row) for row in self.others.pop(0)]
        rows.insert(self.index, list(values))
        return np.array(rows, np.int32)
