"""Loads a model of any format to segment images from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pydantic

from u2net_tf.config.base import to_input_error
from u2net_tf.config.inference import Runtime, WindowConfig
from u2net_tf.files import absolute_path
from u2net_tf.inference.backends.opening import open_ensemble
from u2net_tf.inference.segmenter import Segmenter


def load(
    path: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    runtime: Runtime = "auto",
    overlap: float = 0.5,
    batch_size: int = 1,
    skip_empty: bool = True,
    test_time_mirroring: bool = False,
    precision: str = "float32",
    checkpoint: str = "newest",
    prune_to: int | None = None,
    gate_threshold: float | None = None,
    keep_foreground_components: int | None = None,
    keep_components: int | None = None,
) -> Segmenter:
    """Loads a model to segment images with.

    Args:
      path: a model folder that training, `adapt_model` or `compose_models` wrote; a
        model file (`.u2net`); what `export` wrote: a SavedModel, an ONNX or OpenVINO
        file, or a folder of such files; or the name of a model that comes with the
        package. Or several models with the same domain, such as those of a
        cross-validation, whose class probabilities are averaged.
      runtime: runtime that executes it: "tensorflow", "openvino", "onnxruntime", or
        "auto" for the first that supports the model and is installed.
      overlap: overlap of neighbouring windows, as a fraction of the window size.
      batch_size: number of windows per call of the network.
      skip_empty: whether to label windows in which all voxels are 0 as background,
        without predicting them.
      test_time_mirroring: whether to average the probabilities of every window over its
        mirror images along the mirror axes of the plan.
      precision: "float32", "mixed_float16" or "mixed_bfloat16". Exported models compute
        in float32.
      checkpoint: checkpoint of a model folder: "newest", "best" or "step-N".
      prune_to: depth to which a UNet# is pruned; not pruned if None.
      gate_threshold: lowest gate probability at which a class of a UNet# counts as
        present in a window; gates are not used if None.
      keep_foreground_components: number of largest connected components of the
        foreground to keep, 0 for all; that of the model's plan if None.
      keep_components: number of largest connected components of each class to keep, 0
        for all; those of the model's plan if None.

    Returns:
      The model, which is called with an image.

    Raises:
      InputError: if an argument is invalid, or the path is not that of a model.
      StoppedError: if no runtime is installed that can run it.
    """
    settings: dict[str, Any] = {
        "overlap": overlap,
        "batch_size": batch_size,
        "skip_empty": skip_empty,
        "test_time_mirroring": test_time_mirroring,
        "precision": precision,
        "checkpoint": checkpoint,
        "prune_to": prune_to,
        "gate_threshold": gate_threshold,
        "keep_foreground_components": keep_foreground_components,
        "keep_components": keep_components,
    }
    try:
        windows = WindowConfig(**settings)
    except pydantic.ValidationError as error:
        raise to_input_error(error) from None
    paths = [path] if isinstance(path, str | os.PathLike) else path
    models = [_absolute(each) for each in paths]
    return Segmenter(open_ensemble(models, windows, runtime=runtime, where="`path`"))


def _absolute(path: str | os.PathLike) -> str | os.PathLike:
    """Domains are loaded later, when the working directory may be another one."""
    return absolute_path(path) if os.path.exists(path) else path
