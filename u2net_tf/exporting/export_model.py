"""Exports a trained model to a folder in the format of another runtime."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence

from u2net_tf import files, temporary_names
from u2net_tf.config.exporting import DEFAULT_OVERLAP, ExportConfig
from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package
from u2net_tf.exporting.onnx_model import to_onnx
from u2net_tf.exporting.openvino_model import save_openvino
from u2net_tf.exporting.saved_model import Source, save_saved_model
from u2net_tf.models.checkpoint_paths import checkpoint_hash
from u2net_tf.models.loading import load_network, models_by_domain
from u2net_tf.models.spec import ModelSpec, check_patches
from u2net_tf.models.untrained import warn_of_untrained
from u2net_tf.progress import Progress, silent
from u2net_tf.wording import first_few

_REQUIRED = {"saved_model": (), "onnx": ("onnx", "tf2onnx")}
_REQUIRED["openvino"] = (*_REQUIRED["onnx"], "openvino")


@dataclasses.dataclass(frozen=True)
class Exported:
    """Output of `export_model`.

    Attributes:
      domains: names of the domains.
      checkpoints: paths of their checkpoints.
      names: names of signatures, or of files.
    """

    domains: tuple[str, ...]
    checkpoints: tuple[str, ...]
    names: tuple[str, ...]


def export_model(config: ExportConfig, *, progress: Progress = silent) -> Exported:
    """Writes a model in the format of another runtime; see `u2net_tf.export`.

    Args:
      config: the settings.
      progress: shows the progress over domains.

    Raises:
      InputError: if the model, domain or checkpoint does not exist, the network cannot
        be pruned as requested or take patches of any size, or the output is not empty.
      StoppedError: if a package is not installed.
      OSError: if the files cannot be written.
    """
    _check(config)
    output = files.absolute_path(config.output)
    _require_empty(output)
    for package in _REQUIRED[config.format]:
        import_package(package)
    sources = load_sources(config)
    # A folder cannot replace a link.
    output = output.resolve() if output.is_symlink() else output
    files.check_writable(output)
    temporary_names.remove_leftovers(output.parent)
    partial = temporary_names.temporary_path(output)
    created = files.make_folder(output.parent)
    try:
        with files.errors_name(output):
            names = _write(config, sources, partial, progress)
            _sync(partial)
            _require_empty(output)
            os.replace(partial, output)
        files.sync_folder(output.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        # They are empty after a failure.
        files.remove_empty(created)
    domains = tuple(source.spec.plan.names[source.index] for source in sources)
    checkpoints = tuple(dict.fromkeys(source.checkpoint for source in sources))
    return Exported(domains, checkpoints, tuple(names))


def _check(config: ExportConfig) -> None:
    if config.volumes and config.format != "saved_model":
        raise InputError(
            "`volumes`",
            expected="false, as only a SavedModel can predict volumes",
            received=f"true with the format {config.format}",
        )
    if config.overlap is not None and not config.volumes:
        raise InputError(
            "`overlap`", expected="no value without `volumes`", received=config.overlap
        )


def _write(
    config: ExportConfig,
    sources: Sequence[Source],
    folder: pathlib.Path,
    progress: Progress,
) -> list[str]:
    if config.format == "saved_model":
        overlap = DEFAULT_OVERLAP if config.overlap is None else config.overlap
        return save_saved_model(
            sources,
            folder,
            any_size=config.any_size,
            overlap=overlap if config.volumes else None,
        )
    folder.mkdir()
    names = []
    for source in progress(sources, desc=f"to {config.format}", unit="domain"):
        name = source.spec.plan.names[source.index]
        model = to_onnx(
            source.network,
            source.spec,
            source.index,
            fingerprint=source.fingerprint,
            any_size=config.any_size,
        )
        if config.format == "onnx":
            names.append(f"{name}.onnx")
            (folder / names[-1]).write_bytes(model.SerializeToString())
        else:
            names.append(f"{name}.xml")
            save_openvino(model, folder / names[-1])
    return names


def load_sources(config: ExportConfig) -> list[Source]:
    """Loads the networks of the domains, in the order of the setting.

    Raises:
      InputError: if the model, domain or checkpoint does not exist, or the network
        cannot be pruned as requested or take patches of any size.
    """
    folders = models_by_domain(config.model_dir)
    names = config.domains or tuple(folders)
    if len(set(names)) < len(names):
        raise InputError(
            "`domains`", expected="distinct values", received=", ".join(names)
        )
    if unknown := [name for name in names if name not in folders]:
        raise InputError(
            "`domains`",
            expected=f"some of {first_few(list(folders))}",
            received=first_few(unknown),
        )
    loaded = {}
    for folder in dict.fromkeys(folders[name] for name in names):
        spec, network, path = load_network(
            folder, checkpoint=config.checkpoint, prune_to=config.prune_to
        )
        loaded[folder] = spec, network, path, fingerprint(path, config.prune_to)
    sources = []
    for name in names:
        spec, network, path, weights = loaded[folders[name]]
        check_patches(spec, [name])
        source = Source(network, spec, spec.plan.index(name), weights, path)
        warn_of_untrained(network, spec, source.index, path)
        if config.any_size:
            _require_no_resizing(spec, source.index)
        sources.append(source)
    return sources


def fingerprint(checkpoint: str, prune_to: int | None) -> str:
    """Returns a hash of a checkpoint's weights and plan, with its pruning."""
    digest = checkpoint_hash(checkpoint)
    return digest if prune_to is None else f"{digest} prune_to={prune_to}"


def _require_no_resizing(spec: ModelSpec, index: int) -> None:
    domain = spec.plan.domains[index]
    if spec.network_patch_size(index) != domain.patch_size:
        raise InputError(
            "`any_size`",
            expected=f"false, as patches of {domain.name}, {domain.patch_size}, are "
            f"resized to {spec.patch_size} for the network",
            received="true",
        )


def _require_empty(output: pathlib.Path) -> None:
    """Checks that nothing would be replaced.

    Raises:
      InputError: if the output is a file, a mount point or a folder that is not empty.
    """
    expected = "a new or empty folder"
    if not os.path.lexists(output):
        return
    if not output.is_dir():
        received = "a file" if output.is_file() else files.what_is_at(output)
        raise InputError(output, expected=expected, received=received)
    if names := sorted(os.listdir(output)):
        raise InputError(output, expected=expected, received=first_few(names))
    if os.path.ismount(output):
        # It cannot be replaced by the complete folder.
        raise InputError(
            output,
            expected=expected,
            received="a mount point",
            hint="Give a new folder in it",
        )


def _sync(folder: pathlib.Path) -> None:
    """Flushes all files and folders in a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            files.sync_file(path)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            files.sync_folder(path)
