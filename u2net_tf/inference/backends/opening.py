"""Opens models of any format, and predictors of their domains."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from u2net_tf import files, machine
from u2net_tf.config.inference import Runtime, WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import ensemble, runtimes
from u2net_tf.inference.backend import Backend
from u2net_tf.inference.opened_model import OpenedModel
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.exported_files import (
    SUFFIXES,
    ExportedFile,
    find_kind,
    read_exported,
)
from u2net_tf.models.pruning import prune
from u2net_tf.models.trained import find_trained, trained_models
from u2net_tf.progress import Progress, silent


def open_model(
    path: str | os.PathLike,
    settings: WindowConfig | None = None,
    *,
    runtime: Runtime = "auto",
    progress: Progress = silent,
) -> OpenedModel:
    """Opens a model for prediction; imports no other runtime than that of the model.

    Args:
      path: a folder written by train, adapt or compose, or a folder of independent
        models; the output of export or pack: a SavedModel, an ONNX, OpenVINO or model
        file, or a folder of ONNX or OpenVINO files; or the name of a model that comes
        with the package.
      settings: checkpoint, precision, pruning and gates of the network, and the
        windows; None for the defaults.
      runtime: the runtime; "auto" for the first suitable one that is installed.
      progress: shows the progress over the windows of a volume.

    Raises:
      InputError: if there is no model, it is damaged or of a newer format, the runtime
        does not support its format, or it does not support a setting.
      StoppedError: if no runtime is installed.
    """
    settings = settings or WindowConfig()
    path = find_trained(path)
    _require_model(path)
    kind = find_kind(path)
    if kind is None:
        chosen = runtimes.choose_runtime(path, "checkpoint", runtime)
        return _open_folder(path, chosen, settings, progress)
    found = read_exported(path, kind)
    for exported in found.values():
        _require_settings(settings, exported)
    chosen = runtimes.choose_runtime(path, kind, runtime)
    return OpenedModel(
        path,
        chosen,
        tuple(found),
        lambda name: Predictor.of_settings(
            _BACKENDS[chosen](found[name], settings), settings, progress=progress
        ),
    )


def open_ensemble(
    paths: Sequence[str | os.PathLike],
    settings: WindowConfig | None = None,
    *,
    runtime: Runtime = "auto",
    progress: Progress = silent,
    where: str = "`model`",
) -> OpenedModel:
    """Opens models whose class probabilities are averaged, or a single model.

    Args:
      paths: paths of the models; see `open_model`.
      settings: see `open_model`.
      runtime: see `open_model`.
      progress: see `open_model`.
      where: setting or argument with the paths, for errors.

    Returns:
      A model of the domains that all of them have, in the order of the first. If the
      windows or classes of a domain differ in meaning, its predictor cannot be loaded.

    Raises:
      InputError: as `open_model`, or if the models are not distinct or have no common
        domain.
    """
    settings = settings or WindowConfig()
    ensemble.require_distinct(where, [find_trained(path) for path in paths])
    models = [
        open_model(path, settings, runtime=runtime, progress=progress) for path in paths
    ]
    if len(models) == 1:
        return models[0]
    domains = ensemble.common_domains(where, [each.domains for each in models])
    used = dict.fromkeys(model.runtime for model in models)

    def load(name: str) -> Predictor:
        predictors = [model.predictor(name) for model in models]
        ensemble.require_same_domain(
            paths, [each.plan.domain(name) for each in predictors]
        )
        return ensemble.combine(predictors, settings, progress=progress)

    return OpenedModel(", ".join(map(str, paths)), " and ".join(used), domains, load)


def _require_model(path: str | os.PathLike) -> None:
    place = pathlib.Path(path)
    if place.is_dir() or (place.is_file() and find_kind(place) is not None):
        return
    raise InputError(
        path,
        expected=f"a folder of a model, a file ({', '.join(SUFFIXES)}), or the name of "
        f"a model that comes with the package ({', '.join(trained_models())})",
        received="a different kind of file"
        if place.is_file()
        else files.what_is_at(place),
    )


def _open_folder(
    path: str | os.PathLike, runtime: str, settings: WindowConfig, progress: Progress
) -> OpenedModel:
    machine.import_tensorflow()
    from u2net_tf.inference.backends import keras
    from u2net_tf.models.loading import models_by_domain

    folders = models_by_domain(path)
    # Domains of the same model share a predictor.
    load = functools.cache(
        lambda folder: keras.load_predictor(folder, settings, progress=progress)
    )
    return OpenedModel(path, runtime, tuple(folders), lambda name: load(folders[name]))


def _require_settings(settings: WindowConfig, exported: ExportedFile) -> None:
    """Checks that no setting differs from those fixed when a model was exported.

    Raises:
      InputError: if a setting differs.
    """
    spec = exported.domain.spec
    if settings.prune_to is not None:
        prune(spec, settings.prune_to, str(exported.path))
    if settings.prune_to not in (None, spec.depth):
        raise InputError(
            "`prune_to`",
            expected=f"none or {spec.depth}, the depth with which {exported.path} was "
            "exported",
            received=settings.prune_to,
        )
    defaults = WindowConfig()
    for name, reason in _FIXED.items():
        given, default = getattr(settings, name), getattr(defaults, name)
        if given != default:
            raise InputError(
                f"`{name}`",
                expected=f"{'none' if default is None else default} with "
                f"{exported.path}, as {reason}",
                received=given,
            )


# Setting -> why an exported model supports only the default.
_FIXED = {
    "precision": "exported models compute in float32",
    "checkpoint": "exported models contain a single one",
    "gate_threshold": "exported models do not compute gates",
}


def _by_openvino(exported: ExportedFile, settings: WindowConfig) -> Backend:
    from u2net_tf.inference.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(exported, batch_size=settings.batch_size)


def _by_onnxruntime(exported: ExportedFile, settings: WindowConfig) -> Backend:
    from u2net_tf.inference.backends.onnxruntime import OnnxRuntimeBackend

    del settings  # the session accepts any batch size
    return OnnxRuntimeBackend(exported)


def _by_tensorflow(exported: ExportedFile, settings: WindowConfig) -> Backend:
    machine.import_tensorflow()
    from u2net_tf.inference.backends.saved_model import SavedModelBackend

    del settings  # the signature accepts any batch size
    return SavedModelBackend(exported)


_BACKENDS: Mapping[str, Callable[[ExportedFile, WindowConfig], Backend]] = {
    runtimes.OPENVINO: _by_openvino,
    runtimes.ONNXRUNTIME: _by_onnxruntime,
    runtimes.TENSORFLOW: _by_tensorflow,
}
