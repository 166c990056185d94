"""Interface between the predictor and the runtime of a network."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from u2net_tf.models.spec import ModelSpec


class Backend(Protocol):
    """Runs a trained network.

    Attributes:
      spec: description of the model.
      fingerprint: identifies all else that probabilities depend on: weights, precision.
      checkpoint: path of the weights; "" if they come from elsewhere.
      is_exported: whether it runs an exported graph, which may need more memory.
    """

    spec: ModelSpec
    fingerprint: str
    checkpoint: str
    is_exported: bool

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows.

        Args:
          windows: (N, *patch_size, C) float32, of the domain's patch size.
          domain: index of the domain.
          few: whether too few windows are predicted in total to be worth compiling
            the network for them.

        Returns:
          (N, *patch_size, K) float32, possibly read-only.
        """
        ...
