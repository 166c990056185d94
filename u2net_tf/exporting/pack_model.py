"""Packs a trained model into a single file; see `models.model_file`."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
from collections.abc import Sequence

from u2net_tf import __version__, files, temporary_names
from u2net_tf.config.exporting import ExportConfig
from u2net_tf.config.packing import PackConfig
from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package
from u2net_tf.exporting.export_model import load_sources
from u2net_tf.exporting.make_card import describe_domains, read_texts
from u2net_tf.exporting.onnx_model import to_onnx
from u2net_tf.exporting.saved_model import Source
from u2net_tf.exporting.shared_weights import SharedWeights
from u2net_tf.exporting.write_model_file import to_members, write_members
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_card import Card
from u2net_tf.models.model_file import ModelFile, read_model_file
from u2net_tf.models.model_file_format import SUFFIX, WEIGHTS
from u2net_tf.progress import Progress, silent

_REQUIRED = ("onnx", "tf2onnx")
_RECORDED_VERSIONS = ("tensorflow", "keras", *_REQUIRED)


def pack_model(config: PackConfig, *, progress: Progress = silent) -> ModelFile:
    """Writes a model file, and verifies it by reading it back.

    Args:
      config: the settings.
      progress: shows the progress over domains.

    Raises:
      InputError: if the model, domain or checkpoint does not exist, the network cannot
        be pruned as requested, a text or score for the card cannot be used, a weight is
        out of range for float16, or the file exists.
      StoppedError: if a package is not installed, or a network is too large for ONNX.
      OSError: if the file cannot be written.
    """
    output = files.absolute_path(config.output)
    _check_output(output, overwrite=config.overwrite)
    for package in _REQUIRED:
        import_package(package)
    sources = load_sources(
        ExportConfig(
            model_dir=config.model_dir,
            output=config.output,
            format="onnx",
            domains=config.domains,
            checkpoint=config.checkpoint,
            prune_to=config.prune_to,
        )
    )
    names = [source.spec.plan.names[source.index] for source in sources]
    card = Card(read_texts(config, names), describe_domains(sources, names, config))
    files.check_writable(output)
    temporary_names.remove_leftovers(output.parent)
    graphs, weights = _convert(sources, config, progress)
    versions = {name: importlib.metadata.version(name) for name in _RECORDED_VERSIONS}
    members = to_members(
        graphs,
        weights,
        [_exported(source, config) for source in sources],
        card=card,
        precision=config.precision,
        versions={"u2net-tf": __version__, **versions},
    )
    with files.atomic_write(output) as partial:
        write_members(partial, members)
        read_model_file(partial)
        _check_output(output, overwrite=config.overwrite)
    return read_model_file(output)


def _check_output(output: pathlib.Path, *, overwrite: bool) -> None:
    if output.suffix != SUFFIX:
        raise InputError(
            "`output`", expected=f"a name that ends with {SUFFIX}", received=output.name
        )
    if os.path.lexists(output) and not (overwrite and output.is_file()):
        received = "a file" if output.is_file() else files.what_is_at(output)
        raise InputError(
            output,
            expected="a new file",
            received=received,
            hint="Use `overwrite` to replace it" if output.is_file() else "",
        )


def _convert(
    sources: Sequence[Source], config: PackConfig, progress: Progress
) -> tuple[list[bytes], bytes]:
    """Returns the graphs without their weights, and the weights."""
    weights = SharedWeights(WEIGHTS, config.precision)
    graphs = []
    for source in progress(sources, desc="to ONNX", unit="domain"):
        model = to_onnx(
            source.network,
            source.spec,
            source.index,
            fingerprint=_fingerprint(source, config),
        )
        weights.move(model)
        graphs.append(model.SerializeToString(deterministic=True))
    return graphs, bytes(weights.content)


def _exported(source: Source, config: PackConfig) -> ExportedDomain:
    fingerprint = _fingerprint(source, config)
    return ExportedDomain.of_model(source.spec, source.index, fingerprint=fingerprint)


def _fingerprint(source: Source, config: PackConfig) -> str:
    if config.precision == "float32":
        return source.fingerprint
    return f"{source.fingerprint} {config.precision}"
