"""The format of a model file: names of its members and content of `model.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from u2net_tf import migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.model_card import Card
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.labels import LabelValue
from u2net_tf.schema import Count, Sha256, Text
from u2net_tf.wording import first_few

SUFFIX = ".u2net"
# Names of the members that are not graphs.
DESCRIPTION, PAGE = "model.json", "card.md"
PLAN_NAME, WEIGHTS = "plan.json", "weights.bin"
WeightsPrecision = Literal["float32", "float16"]
_Colour = Annotated[
    str,
    Field(pattern="^#[0-9a-f]{6}$"),
    schema.expected("# and 6 digits from 0 to 9 and a to f"),
]


@schema.model
class Member:
    """A member of the zip.

    Attributes:
      name: name of the member.
      size: size in bytes.
      sha256: SHA-256 of its content, hexadecimal.
    """

    name: Text
    size: Count
    sha256: Sha256


@schema.model
class PackedLabel:
    """A class of a domain.

    Attributes:
      index: channel of the class in the output of the graph.
      name: name of the class.
      value: value of the class in label maps.
      colour: "#rrggbb" for drawings; None for the background.
    """

    index: Count
    name: Text
    value: LabelValue
    colour: _Colour | None


@schema.model
class PackedDomain:
    """A domain of the file.

    Attributes:
      name: name of the domain.
      graph: name of the member that contains its graph.
      labels: its classes.
      any_size: see `ExportedDomain`.
      fingerprint: see `ExportedDomain`.
      model: specification of a model of this domain alone, in the format
        `models.spec.MODEL`.
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
      precision: precision of the stored weights; graphs always compute in float32.
      domains: the domains, in the order of the model.
      card: card of the model.
      members: all other members.
      versions: name of a package used to write the file -> its version.
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
        expected = member_names(len(names))[1:]
        found = [member.name for member in self.members]
        if sorted(found) != sorted(expected):
            raise InputError(
                "members", expected=first_few(expected), received=first_few(found)
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
    upgrades=(migrations.model_file_with_regions,),
)


def graph_name(index: int) -> str:
    """Returns the name of the member that contains the graph of a domain."""
    return f"domain-{index}.onnx"


def member_names(num_domains: int) -> list[str]:
    """Returns the names of all members in file order, the description first."""
    graphs = [graph_name(index) for index in range(num_domains)]
    return [DESCRIPTION, PAGE, PLAN_NAME, *graphs, WEIGHTS]


def as_member(name: str, content: bytes) -> Member:
    """Returns the description of a member."""
    return Member(name, len(content), hashlib.sha256(content).hexdigest())


def labels_of(
    spec: ModelSpec, colours: Sequence[str | None]
) -> tuple[PackedLabel, ...]:
    """Returns the classes of the only domain in a specification."""
    labels = spec.plan.domains[0].labels
    return tuple(
        PackedLabel(index, label.name, label.values[0], colour)
        for index, (label, colour) in enumerate(zip(labels, colours, strict=True))
    )
