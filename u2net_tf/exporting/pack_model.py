"""Packs a trained model into one file; see `models.model_file`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

from u2net_tf import __version__, files
from u2net_tf.config.exporting import ExportConfig
from u2net_tf.config.packing import PackConfig
from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package
from u2net_tf.exporting.card_page import write_page
from u2net_tf.exporting.export_model import load_sources
from u2net_tf.exporting.make_card import describe_domains, read_texts
from u2net_tf.exporting.onnx_model import to_onnx
from u2net_tf.exporting.saved_model import Source
from u2net_tf.exporting.shared_weights import SharedWeights
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_card import Card
from u2net_tf.models.model_file import (
    DESCRIPTION,
    MODEL_FILE,
    PAGE,
    PLAN_NAME,
    SUFFIX,
    WEIGHTS,
    Description,
    ModelFile,
    PackedDomain,
    as_member,
    graph_name,
    labels_of,
    member_names,
    read_model_file,
)
from u2net_tf.models.spec import MODEL
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization.figures import class_colour

_NEEDED = ("onnx", "tf2onnx")
_MADE_WITH = ("tensorflow", "keras", *_NEEDED)
# The earliest that a zip can hold: the same model makes the same file at any time.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack_model(config: PackConfig, *, progress: Progress = silent) -> ModelFile:
    """Writes a model file, and reads it again.

    Args:
      config: the settings.
      progress: shows how many domains are done.

    Raises:
      InputError: if there is no such model, domain or checkpoint, the network cannot be
        pruned so, a text or score for the card cannot be used, float16 does not hold a
        weight, or the file exists.
      StoppedError: if a package is not installed, or a network is too large for ONNX.
      OSError: if the file cannot be written.
    """
    output = files.absolute_path(config.output)
    _check_output(output, overwrite=config.overwrite)
    for package in _NEEDED:
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
    graphs, weights = _convert(sources, config, progress)
    contents = _describe(graphs, weights, card, config, sources)
    with files.written_whole(output) as partial:
        _write_zip(partial, contents)
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
            hint="Set `overwrite` to replace it" if output.is_file() else "",
        )


def _convert(
    sources: Sequence[Source], config: PackConfig, progress: Progress
) -> tuple[list[bytes], bytes]:
    """The graphs without their weights, and these."""
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


def _fingerprint(source: Source, config: PackConfig) -> str:
    if config.precision == "float32":
        return source.fingerprint
    return f"{source.fingerprint} {config.precision}"


def _describe(
    graphs: Sequence[bytes],
    weights: bytes,
    card: Card,
    config: PackConfig,
    sources: Sequence[Source],
) -> dict[str, bytes]:
    """Name -> bytes of each member, in the order of the file."""
    domains = [
        ExportedDomain.of_model(
            source.spec, source.index, fingerprint=_fingerprint(source, config)
        )
        for source in sources
    ]
    packed = tuple(_pack_domain(index, domain) for index, domain in enumerate(domains))
    plan = plan_to_json(Plan(tuple(domain.spec.plan.domains[0] for domain in domains)))
    contents = {graph_name(index): graph for index, graph in enumerate(graphs)}
    contents |= {WEIGHTS: weights, PLAN_NAME: plan.encode()}
    members = [as_member(name, content) for name, content in contents.items()]
    versions = {name: importlib.metadata.version(name) for name in _MADE_WITH}
    versions = {"u2net-tf": __version__, **versions}
    page = write_page(card, packed, plan=domains, members=members, versions=versions)
    contents[PAGE] = page.encode()
    members.append(as_member(PAGE, contents[PAGE]))
    description = Description(
        precision=config.precision,
        domains=packed,
        card=card,
        members=tuple(members),
        versions=versions,
    )
    text = json.dumps(MODEL_FILE.to_dict(description), indent=1, ensure_ascii=False)
    contents[DESCRIPTION] = f"{text}\n".encode()
    return {name: contents[name] for name in member_names(len(graphs))}


def _pack_domain(index: int, domain: ExportedDomain) -> PackedDomain:
    num_classes = domain.spec.plan.domains[0].num_classes
    colours = [None, *map(class_colour, range(1, num_classes))]
    return PackedDomain(
        name=domain.name,
        graph=graph_name(index),
        labels=labels_of(domain.spec, colours),
        any_size=domain.any_size,
        fingerprint=domain.fingerprint,
        model=MODEL.to_dict(domain.spec),
    )


def _write_zip(path: pathlib.Path, contents: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            member = zipfile.ZipInfo(name, _TIME)
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
