"""Test-time mirroring: averages predictions over mirror images of the windows."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from absl import logging

from u2net_tf.inference.backend import Backend
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import AXES


class MirroredBackend:
    """A `Backend` that averages another one's probabilities over mirror images.

    Each window is predicted as it is, and mirrored along each of the domain's mirror
    axes and each combination of them. These predictions are mirrored back and averaged.
    Here probabilities are averaged; nnU-Net averages logits.

    Args:
      backend: predicts the windows and their mirror images.

    Reference: Isensee et al., nnU-Net, Nature Methods 2021, online methods.
    """

    def __init__(self, backend: Backend):
        self._backend = backend
        self.spec: ModelSpec = backend.spec
        self.fingerprint = f"{backend.fingerprint} test_time_mirroring"
        self.checkpoint = backend.checkpoint
        self.is_exported = backend.is_exported
        self._combinations = functools.cache(self._find_combinations)

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        predicted = self._backend.predict_windows(windows, domain, few=few)
        mirrored = self._combinations(domain)
        if not mirrored:
            return predicted
        total = predicted.copy()
        for axes in mirrored:
            # A runtime may need contiguous memory.
            images = np.ascontiguousarray(np.flip(windows, axes))
            predicted = self._backend.predict_windows(images, domain, few=few)
            total += np.flip(predicted, axes)
        total /= 1 + len(mirrored)
        return total

    def _find_combinations(self, index: int) -> list[tuple[int, ...]]:
        """Returns the axes of a batch that each mirror image of a domain mirrors."""
        domain = self.spec.plan.domains[index]
        if not domain.mirror_axes:
            logging.warning(
                "%s has no mirror axes in the plan of %s: test-time mirroring has no "
                "effect",
                domain.name,
                self.checkpoint,
            )
        axes = [1 + AXES.index(axis) for axis in domain.mirror_axes]
        return [
            combination
            for number in range(1, len(axes) + 1)
            for combination in itertools.combinations(axes, number)
        ]
