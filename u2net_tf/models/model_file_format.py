"""The format of a model file: names of its members, and what its `model.json` holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.model_card import Card
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import LabelValue
from u2net_tf.schema import Count, Text
from u2net_tf.wording import first_few

SUFFIX = ".u2net"
# Members, beside the graphs.
DESCRIPTION, PAGE = "model.json", "card.md"
PLAN_NAME, WEIGHTS = "plan.json", "weights.bin"
WeightsPrecision = Literal["float32", "float16"]


@schema.model
class Member:
    """A member of the zip.

    Attributes:
      name: its name.
      size: its bytes.
      sha256: their hash, in hexadecimal digits.
    """

    name: Text
    size: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@schema.model
class PackedLabel:
    """A class of a domain.

    Attributes:
      index: its channel in the output of the graph.
      name: its name.
      value: what label maps are written with.
      colour: "#rrggbb" to draw it in; None for the background.
    """

    index: Count
    name: Text
    value: LabelValue
    colour: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")] | None


@schema.model
class PackedDomain:
    """A domain of the file.

    Attributes:
      name: its name.
      graph: name of the member that is its graph.
      labels: its classes.
      any_size: see `ExportedDomain`.
      fingerprint: see `ExportedDomain`.
      model: what `models.spec.MODEL` writes of this domain alone.
    """

    name: Text
    graph: Text
    labels: tuple[PackedLabel, ...]
    any_size: bool
    fingerprint: Text
    model: dict[str, Any]


@schema.model
class Description:
    """The content of `model.json`.

    Attributes:
      precision: of the weights; graphs compute in float32 in any case.
      domains: in the order of the model.
      card: what users should know.
      members: all other members.
      versions: name of a package -> its version, of those that made the file.
    """

    precision: WeightsPrecision
    domains: Annotated[tuple[PackedDomain, ...], Field(min_length=1)]
    card: Card
    members: tuple[Member, ...]
    versions: dict[Text, Text]

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        schema.require_distinct("domains", names, "distinct names")
        if len(self.card.domains) != len(names):
            raise InputError(
                "card.domains",
                expected=str(len(names)),
                received=len(self.card.domains),
            )
        wanted = member_names(len(names))[1:]
        found = [member.name for member in self.members]
        if sorted(found) != sorted(wanted):
            raise InputError(
                "members", expected=first_few(wanted), received=first_few(found)
            )
        for index, domain in enumerate(self.domains):
            if domain.graph != graph_name(index):
                raise InputError(
                    f"domains[{index}].graph",
                    expected=graph_name(index),
                    received=domain.graph,
                )


MODEL_FILE = FileFormat(
    name="the description of a model file",
    made_by="python -m u2net_tf.pack",
    kind=Description,
    oldest=1,
    upgrades=(),
)


def graph_name(index: int) -> str:
    """Name of the member that is the graph of a domain."""
    return f"domain-{index}.onnx"


def member_names(num_domains: int) -> list[str]:
    """Names of all members, the description first, in the order of the file."""
    graphs = [graph_name(index) for index in range(num_domains)]
    return [DESCRIPTION, PAGE, PLAN_NAME, *graphs, WEIGHTS]


def as_member(name: str, content: bytes) -> Member:
    """Describes a member."""
    return Member(name, len(content), hashlib.sha256(content).hexdigest())


def labels_of(
    spec: ModelSpec, colours: Sequence[str | None]
) -> tuple[PackedLabel, ...]:
    """The classes of a domain that is alone in its specification."""
    labels = spec.plan.domains[0].labels
    return tuple(
        PackedLabel(index, label.name, label.values[0], colour)
        for index, (label, colour) in enumerate(zip(labels, colours, strict=True))
    )
