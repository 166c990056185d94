"""Reads model files: ONNX graphs, their shared weights and their description.

A model file is a zip of uncompressed members, which docs/model_file.md describes.
Reading it needs neither TensorFlow nor an ONNX package, executes no code from it and
writes nothing. A damaged or malicious file raises an `InputError`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib

from u2net_tf.errors import InputError
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_file_format import (
    DESCRIPTION,
    MODEL_FILE,
    PAGE,
    PLAN_NAME,
    WEIGHTS,
    Description,
    Member,
    PackedDomain,
    PackedLabel,
    as_member,
    graph_name,
    labels_of,
    member_names,
)
from u2net_tf.models.onnx_bytes import check_shapes, join_weights
from u2net_tf.models.spec import MODEL
from u2net_tf.models.zip_archive import ZipArchive
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import PLAN
from u2net_tf.wording import first_few

# Descriptions and graphs without weights are smaller; they are read into memory.
MAX_TEXT_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The content of a model file.

    Attributes:
      path: the file.
      description: the content of `model.json`.
      domains: description of each graph.
      page: the content of `card.md`, Markdown.
      sha256: hash of `model.json`, which contains the hashes of all other members.
    """

    path: pathlib.Path
    description: Description
    domains: tuple[ExportedDomain, ...]
    page: str
    sha256: str
    _graphs: tuple[bytes, ...]
    _weights: bytes

    @property
    def plan(self) -> Plan:
        """Plan of all domains."""
        return Plan(tuple(domain.spec.plan.domains[0] for domain in self.domains))

    @property
    def labels(self) -> dict[str, tuple[PackedLabel, ...]]:
        """Name of a domain -> its classes."""
        return {domain.name: domain.labels for domain in self.description.domains}

    def to_json(self) -> str:
        """Returns `model.json` in the newest format."""
        fields = MODEL_FILE.to_dict(self.description)
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"

    def index(self, name: str) -> int:
        """Returns the index of the domain with this name.

        Raises:
          InputError: if there is none.
        """
        names = [domain.name for domain in self.domains]
        if name not in names:
            raise InputError(
                self.path, expected=f"one of {first_few(names)}", received=name
            )
        return names.index(name)

    def onnx_model(self, index: int) -> bytes:
        """Returns a domain's ONNX model with embedded weights.

        onnxruntime's `InferenceSession` and OpenVINO's `Core.read_model` accept it
        directly. It maps "patches" (N, *patch_size, M) to "probabilities"
        (N, *patch_size, K), both float32 and channels last.

        Args:
          index: index of the domain.
        """
        return join_weights(
            self._graphs[index],
            self._weights,
            location=WEIGHTS,
            source=f"{self.path}: {graph_name(index)}",
        )


def read_model_file(path: str | os.PathLike) -> ModelFile:
    """Reads a model file and checks its entire content.

    Raises:
      InputError: if the file or a member is missing, damaged or not in the format of
        `u2net_tf.pack`; names the file and the member.
      OSError: if the file cannot be read.
    """
    path = pathlib.Path(path)
    with ZipArchive(path, f"a model file written by `{MODEL_FILE.made_by}`") as archive:
        text = _read(archive, DESCRIPTION)
        description = MODEL_FILE.from_text(
            _decoded(text, f"{path}: {DESCRIPTION}"), f"{path}: {DESCRIPTION}"
        )
        _require_members(archive, description)
        contents = {
            member.name: _read_checked(archive, member)
            for member in description.members
        }
    graphs = tuple(contents[domain.graph] for domain in description.domains)
    domains = tuple(
        _read_domain(domain, f"{path}: {DESCRIPTION}: domains[{index}]")
        for index, domain in enumerate(description.domains)
    )
    found = ModelFile(
        path=path,
        description=description,
        domains=domains,
        page=_decoded(contents[PAGE], f"{path}: {PAGE}"),
        sha256=hashlib.sha256(text).hexdigest(),
        _graphs=graphs,
        _weights=contents[WEIGHTS],
    )
    _check_plan(found, contents[PLAN_NAME])
    for index, domain in enumerate(domains):
        check_shapes(
            found.onnx_model(index),
            domain.spec.plan.domains[0],
            any_size=domain.any_size,
            source=f"{path}: {graph_name(index)}",
        )
    return found


def _decoded(text: bytes, source: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(source, expected="UTF-8", received=error) from None


def _read(archive: ZipArchive, name: str) -> bytes:
    size = archive.sizes.get(name, 0)
    if name != WEIGHTS and size > MAX_TEXT_BYTES:
        raise InputError(
            f"{archive.path}: {name}",
            expected=f"at most {MAX_TEXT_BYTES:,} bytes",
            received=f"{size:,}",
        )
    return archive.read(name)


def _require_members(archive: ZipArchive, description: Description) -> None:
    known = member_names(len(description.domains))
    if unknown := [name for name in archive.sizes if name not in known]:
        raise InputError(
            archive.path,
            expected=f"only the members {first_few(known)}",
            received=first_few([*map(repr, unknown)]),
        )


def _read_checked(archive: ZipArchive, member: Member) -> bytes:
    content = _read(archive, member.name)
    found = as_member(member.name, content)
    if found != member:
        raise InputError(
            f"{archive.path}: {member.name}",
            expected=f"{member.size:,} bytes with SHA-256 {member.sha256}",
            received=f"{found.size:,} bytes with {found.sha256}",
        )
    return content


def _read_domain(domain: PackedDomain, place: str) -> ExportedDomain:
    spec = MODEL.from_dict(domain.model, f"{place}.model")
    if spec.plan.names != (domain.name,):
        raise InputError(
            f"{place}.model",
            expected=f"a model of {domain.name} alone",
            received=", ".join(spec.plan.names),
        )
    colours = [label.colour for label in domain.labels]
    num_classes = spec.plan.domains[0].num_classes
    if len(colours) != num_classes or labels_of(spec, colours) != domain.labels:
        raise InputError(
            f"{place}.labels",
            expected="the classes of its plan",
            received=[label.name for label in domain.labels],
        )
    return ExportedDomain(spec, domain.fingerprint, domain.any_size)


def _check_plan(model: ModelFile, text: bytes) -> None:
    source = f"{model.path}: {PLAN_NAME}"
    if PLAN.from_text(_decoded(text, source), source) != model.plan:
        raise InputError(
            source,
            expected=f"the plan of the domains in {DESCRIPTION}",
            received="a different plan",
        )
