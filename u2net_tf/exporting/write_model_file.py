"""Writes model files, which `models.model_file` reads."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

from u2net_tf.exporting.card_page import write_page
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_card import Card
from u2net_tf.models.model_file_format import (
    DESCRIPTION,
    MODEL_FILE,
    PAGE,
    PLAN_NAME,
    WEIGHTS,
    Description,
    PackedDomain,
    WeightsPrecision,
    as_member,
    graph_name,
    labels_of,
    member_names,
)
from u2net_tf.models.spec import MODEL
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.visualization.figures import class_colour

# The earliest time in a zip file: the same model always results in the same file.
_TIME = (1980, 1, 1, 0, 0, 0)


def to_members(
    graphs: Sequence[bytes],
    weights: bytes,
    domains: Sequence[ExportedDomain],
    *,
    card: Card,
    precision: WeightsPrecision,
    versions: Mapping[str, str],
) -> dict[str, bytes]:
    """Returns name -> bytes of each member, in the order of the file.

    Args:
      graphs: graph of each domain, without weights.
      weights: weights to which the graphs refer.
      domains: description of each graph.
      card: content of the model card.
      precision: precision of the weights.
      versions: name of a package that converted the graphs -> its version.
    """
    packed = tuple(_pack_domain(index, domain) for index, domain in enumerate(domains))
    plan = plan_to_json(Plan(tuple(domain.spec.plan.domains[0] for domain in domains)))
    contents = {graph_name(index): graph for index, graph in enumerate(graphs)}
    contents |= {WEIGHTS: weights, PLAN_NAME: plan.encode()}
    members = [as_member(name, content) for name, content in contents.items()]
    page = write_page(card, packed, domains, members=members, versions=versions)
    contents[PAGE] = page.encode()
    members.append(as_member(PAGE, contents[PAGE]))
    description = Description(
        precision=precision,
        domains=packed,
        card=card,
        members=tuple(members),
        versions=dict(versions),
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


def write_members(path: pathlib.Path, members: Mapping[str, bytes]) -> None:
    """Writes a zip file of uncompressed members.

    Args:
      path: the file, which must not exist.
      members: name -> bytes.
    """
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _TIME)
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
