"""Runs the Keras network on TensorFlow."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from u2net_tf.config.inference import WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.checkpoint_paths import checkpoint_hash
from u2net_tf.models.loading import load_network, models_by_domain
from u2net_tf.models.pruning import prune
from u2net_tf.models.segmentation import segment_patches
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.untrained import warn_of_untrained
from u2net_tf.networks import ops
from u2net_tf.networks.device_memory import describe_windows, reporting_exhausted
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.progress import Progress, silent


class KerasBackend:
    """A `Backend` that runs a `DomainModel`.

    Args:
      network: the network with its weights.
      spec: description of the model.
      fingerprint: identifies weights and precision; "" if predictions are not recorded.
      checkpoint: path of the weights; "" if they come from elsewhere.
      gate_threshold: see `UNetSharp.gated_logits`; None to predict without gates.
    """

    is_exported = False

    def __init__(
        self,
        network: DomainModel,
        spec: ModelSpec,
        *,
        fingerprint: str = "",
        checkpoint: str = "",
        gate_threshold: float | None = None,
    ):
        self.gate_threshold = gate_threshold
        self.network = network
        self.spec = spec
        self.fingerprint = fingerprint
        self.checkpoint = checkpoint
        self._traced = functools.cache(self._trace)
        self._warned = functools.cache(self._warn_of_untrained)

    @classmethod
    def from_model_dir(
        cls,
        model_dir: str | os.PathLike,
        *,
        checkpoint: str = "newest",
        precision: str = "float32",
        prune_to: int | None = None,
        gate_threshold: float | None = None,
    ) -> KerasBackend:
        """Loads a checkpoint.

        Args:
          model_dir: folder written by training.
          checkpoint: see `load_network`.
          precision: see `load_network`.
          prune_to: see `load_network`.
          gate_threshold: see `KerasBackend`.

        Raises:
          InputError: if there is no intact checkpoint, it cannot be pruned as
            requested, or it has no gates although there is a threshold.
        """
        spec, network, path = load_network(
            model_dir, checkpoint=checkpoint, precision=precision, prune_to=prune_to
        )
        _require_gates(spec, gate_threshold, model_dir)
        fingerprint = f"{checkpoint_hash(path)} {precision}"
        if prune_to is not None:
            fingerprint += f" prune_to={prune_to}"
        if gate_threshold is not None:
            fingerprint += f" gate_threshold={gate_threshold}"
        return cls(
            network,
            spec,
            fingerprint=fingerprint,
            checkpoint=path,
            gate_threshold=gate_threshold,
        )

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        self._warned(domain)

        def describe() -> tuple[str, str]:
            # A network that is being trained has no checkpoint, and a fixed precision.
            is_fixed = not self.checkpoint or self.network.compute_dtype != "float32"
            return describe_windows(windows, is_precision_fixed=is_fixed)

        with reporting_exhausted(describe):
            if few:
                # Tracing and compiling would take longer than computing a few windows.
                with ops.use_implementation("plain"), ops.without_gradients():
                    segmented = self._segment(tf.constant(windows), domain)
            else:
                segmented = self._traced(domain)(windows)
            # On a CPU this is the tensor's own memory; `numpy` would copy it.
            return np.asarray(segmented)

    def _warn_of_untrained(self, domain: int) -> None:
        # A network that does not come from a checkpoint is being trained.
        if self.checkpoint:
            warn_of_untrained(
                self.network,
                self.spec,
                domain,
                self.checkpoint,
                with_gates=self.gate_threshold is not None,
            )

    def _trace(self, index: int) -> Callable[[np.ndarray], tf.Tensor]:
        """Returns a traced function from windows to their probabilities."""
        domain = self.spec.plan.domains[index]
        signature = tf.TensorSpec([None, *domain.patch_size, domain.num_modalities])

        @tf.function(input_signature=[signature], autograph=False)
        def predict_windows(windows: tf.Tensor) -> tf.Tensor:
            return self._segment(windows, index)

        return predict_windows

    def _segment(self, windows: tf.Tensor, index: int) -> tf.Tensor:
        return segment_patches(
            self.network, self.spec, index, windows, gate_threshold=self.gate_threshold
        )


def require_settings(
    spec: ModelSpec, settings: WindowConfig, model_dir: str | os.PathLike
) -> None:
    """Checks that a model can be pruned as requested, and has gates if it needs them.

    Args:
      spec: specification of the model.
      settings: the settings.
      model_dir: folder of the model.

    Raises:
      InputError: if a setting does not fit the model.
    """
    if settings.prune_to is not None:
        prune(spec, settings.prune_to, f"the model in {model_dir}")
    _require_gates(spec, settings.gate_threshold, model_dir)


def _require_gates(
    spec: ModelSpec, gate_threshold: float | None, model_dir: str | os.PathLike
) -> None:
    if gate_threshold is not None and spec.gates == "none":
        raise InputError(
            "`gate_threshold`",
            expected=f"none, as the model in {model_dir} has no gates",
            received=gate_threshold,
        )


def load_predictor(
    model_dir: str | os.PathLike,
    settings: WindowConfig | None = None,
    *,
    progress: Progress = silent,
) -> Predictor:
    """Loads a model for prediction.

    Args:
      model_dir: folder written by training.
      settings: checkpoint, precision, pruning and gates of the network, and the
        windows; None for the defaults.
      progress: shows the progress over the windows of a volume.

    Raises:
      InputError: if there is no intact checkpoint.
    """
    settings = settings or WindowConfig()
    backend = KerasBackend.from_model_dir(
        model_dir,
        checkpoint=settings.checkpoint,
        precision=settings.precision,
        prune_to=settings.prune_to,
        gate_threshold=settings.gate_threshold,
    )
    return Predictor.of_settings(backend, settings, progress=progress)


def find_model(model_dir: str | os.PathLike, domain: str) -> pathlib.Path:
    """Finds the model of a domain among independent ones.

    Args:
      model_dir: folder written by training.
      domain: name of the domain.

    Returns:
      The folder itself, or its subfolder with the domain's model.

    Raises:
      InputError: if no model has the domain.
    """
    folders = models_by_domain(model_dir)
    if domain not in folders:
        raise InputError(
            "`domain`", expected=f"one of {', '.join(folders)}", received=domain
        )
    return folders[domain]
