"""The interface of what runs a network to the predictor."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from u2net_tf.models.spec import ModelSpec


class Backend(Protocol):
    """Runs a trained network.

    Attributes:
      spec: what the model is.
      fingerprint: of everything else that probabilities depend on: weights, precision.
      checkpoint: path of the weights; "" if they come from elsewhere.
    """

    spec: ModelSpec
    fingerprint: str
    checkpoint: str

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Class probabilities of windows.

        Args:
          windows: (N, *patch_size, C) float32, of the domain's patch size.
          domain: index of the domain.
          few: whether so few are predicted in all that nothing need be compiled for
            them.

        Returns:
          (N, *patch_size, K) float32. It may be read-only.
        """
        ...
