"""u2net-tf: one 3D segmentation network for many organs (3D U²-Net).

The names in `__all__` are the public API. A module is imported when one of its names is
first used, so `import u2net_tf` is fast and does not import TensorFlow.

`u2net_tf.train`, `u2net_tf.adapt` and `u2net_tf.compose` are the modules of the
commands; the functions behind these are `train_model`, `adapt_model` and
`compose_models`.
"""

from __future__ import annotations

import importlib
import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from u2net_tf.config.evaluation import CompareConfig, EvaluateConfig, ScoreConfig
    from u2net_tf.config.inference import ComposeConfig
    from u2net_tf.config.training import AdaptConfig, TrainConfig
    from u2net_tf.errors import InputError, StoppedEarlyError, StoppedError
    from u2net_tf.evaluation.compare_scores import compare_scores
    from u2net_tf.evaluation.evaluate_model import evaluate_model
    from u2net_tf.evaluation.score_label_maps import score_label_maps
    from u2net_tf.inference.backends.keras import load_predictor
    from u2net_tf.inference.backends.load_segmenter import load
    from u2net_tf.inference.predictor import Prediction, Predictor
    from u2net_tf.inference.segmentation import Segmentation
    from u2net_tf.inference.segmenter import Segmenter
    from u2net_tf.losses import focal, lovasz_softmax, segmentation_loss
    from u2net_tf.models.composition import compose_models
    from u2net_tf.models.loading import load_network, save_model
    from u2net_tf.models.model_file import read_model_file
    from u2net_tf.models.spec import ModelSpec
    from u2net_tf.networks.u2net import U2Net
    from u2net_tf.networks.unet_sharp import UNetSharp
    from u2net_tf.plan.domains import Domain, Plan
    from u2net_tf.plan.labels import Label
    from u2net_tf.plan.plan_file import load_plan
    from u2net_tf.plan.preprocessing import Preprocessing
    from u2net_tf.training.adaptation import adapt as adapt_model
    from u2net_tf.training.runs import train as train_model
    from u2net_tf.volumes.case import read_image
    from u2net_tf.volumes.case_labels import raw_labels
    from u2net_tf.volumes.grid import Volume
    from u2net_tf.volumes.label_map_files import save_label_map
    from u2net_tf.volumes.nifti import save_labels

__version__ = "0.2.0.dev0"

# TensorFlow reads this when it is imported. By default it uses oneDNN where a processor
# has AVX512_VNNI; with AVX2 alone, a step takes three times as long without it.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = [
    "AdaptConfig",
    "CompareConfig",
    "ComposeConfig",
    "Domain",
    "EvaluateConfig",
    "InputError",
    "Label",
    "ModelSpec",
    "Plan",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "ScoreConfig",
    "Segmentation",
    "Segmenter",
    "StoppedEarlyError",
    "StoppedError",
    "TrainConfig",
    "U2Net",
    "UNetSharp",
    "Volume",
    "adapt_model",
    "compare_scores",
    "compose_models",
    "evaluate_model",
    "focal",
    "load",
    "load_network",
    "load_plan",
    "load_predictor",
    "lovasz_softmax",
    "raw_labels",
    "read_image",
    "read_model_file",
    "save_label_map",
    "save_labels",
    "save_model",
    "score_label_maps",
    "segmentation_loss",
    "train_model",
]

# Module that defines each public name, and its name there if it differs.
_MODULES = {
    "AdaptConfig": "config.training",
    "CompareConfig": "config.evaluation",
    "ComposeConfig": "config.inference",
    "Domain": "plan.domains",
    "EvaluateConfig": "config.evaluation",
    "InputError": "errors",
    "Label": "plan.labels",
    "ModelSpec": "models.spec",
    "Plan": "plan.domains",
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "Preprocessing": "plan.preprocessing",
    "ScoreConfig": "config.evaluation",
    "Segmentation": "inference.segmentation",
    "Segmenter": "inference.segmenter",
    "StoppedEarlyError": "errors",
    "StoppedError": "errors",
    "TrainConfig": "config.training",
    "U2Net": "networks.u2net",
    "UNetSharp": "networks.unet_sharp",
    "Volume": "volumes.grid",
    "adapt_model": "training.adaptation:adapt",
    "compare_scores": "evaluation.compare_scores",
    "compose_models": "models.composition",
    "evaluate_model": "evaluation.evaluate_model",
    "focal": "losses",
    "load": "inference.backends.load_segmenter",
    "load_network": "models.loading",
    "load_plan": "plan.plan_file",
    "load_predictor": "inference.backends.keras",
    "lovasz_softmax": "losses",
    "raw_labels": "volumes.case_labels",
    "read_image": "volumes.case",
    "read_model_file": "models.model_file",
    "save_label_map": "volumes.label_map_files",
    "save_labels": "volumes.nifti",
    "save_model": "models.loading",
    "score_label_maps": "evaluation.score_label_maps",
    "segmentation_loss": "losses",
    "train_model": "training.runs:train",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path, _, other_name = _MODULES[name].partition(":")
    try:
        module = importlib.import_module(f"u2net_tf.{path}")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        from u2net_tf.machine import NO_TENSORFLOW

        raise ImportError(f"u2net_tf.{name}: {NO_TENSORFLOW}") from error
    # Cached in the module: later accesses do not call this function.
    value = globals()[name] = getattr(module, other_name or name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
