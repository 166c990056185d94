"""What exported files say of themselves: reading and writing it. No TensorFlow.

The same texts are assets of a SavedModel, metadata of an ONNX file and information at
the root of an OpenVINO model. `export` is for this package, which needs no other file
to predict with the model; `plan` and `labels` are for people and other programs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.spec import MODEL, ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.schema import Text

EXPORT, PLAN, LABELS = "export", "plan", "labels"
# What exported files name: their input and output, the signature of a domain, whose
# name follows, and the places of the texts in ONNX files and OpenVINO models.
INPUT, OUTPUT = "patches", "probabilities"
SIGNATURE = "segment_"
METADATA_PREFIX = "u2net_tf."
OPENVINO_ROOT = "u2net_tf"


@dataclasses.dataclass(frozen=True)
class ExportedDomain:
    """One domain of an exported model.

    Attributes:
      spec: specification of the network, of this domain alone, without names of cases.
      fingerprint: of its weights, and of how it was pruned.
      any_size: whether it takes patches of any size that can be halved as often as the
        network does; otherwise of the domain's patch size.
    """

    spec: ModelSpec
    fingerprint: str
    any_size: bool

    @classmethod
    def of_model(
        cls, spec: ModelSpec, domain: int, *, fingerprint: str, any_size: bool = False
    ) -> ExportedDomain:
        """Describes one domain of a model of several.

        Args:
          spec: specification of the model.
          domain: index of the domain.
          fingerprint: see the class.
          any_size: see the class.
        """
        unnamed = without_case_names(spec)
        name = unnamed.plan.names[domain]
        alone = dataclasses.replace(
            unnamed,
            plan=unnamed.plan.select([name]),
            case_counts=(unnamed.count_cases(domain),),
        )
        return cls(alone, fingerprint, any_size)

    @property
    def name(self) -> str:
        """Name of the domain."""
        return self.spec.plan.names[0]


@schema.model
class _Domain:
    """Of `ExportedDomain`; `model` is what `models.spec.MODEL` writes."""

    model: dict[str, Any]
    fingerprint: Text
    any_size: bool


@schema.model
class _Export:
    domains: Annotated[tuple[_Domain, ...], Field(min_length=1)]


EXPORT_FORMAT = FileFormat(
    name="the description of an exported model",
    made_by="python -m u2net_tf.export",
    kind=_Export,
    oldest=1,
    upgrades=(),
)


def to_texts(domains: Sequence[ExportedDomain]) -> dict[str, str]:
    """Returns the JSON texts that describe an exported model, by name."""
    export = _Export(
        tuple(
            _Domain(MODEL.to_dict(domain.spec), domain.fingerprint, domain.any_size)
            for domain in domains
        )
    )
    plan = Plan(tuple(domain.spec.plan.domains[0] for domain in domains))
    labels = {
        domain.name: [
            {"index": index, "name": label.name, "value": label.values[0]}
            for index, label in enumerate(domain.labels)
        ]
        for domain in plan.domains
    }
    return {
        EXPORT: json.dumps(EXPORT_FORMAT.to_dict(export), ensure_ascii=False),
        PLAN: plan_to_json(plan),
        LABELS: json.dumps(labels, ensure_ascii=False),
    }


def from_texts(texts: Mapping[str, str], source: object) -> list[ExportedDomain]:
    """Reads what `to_texts` returned, of which it needs `EXPORT` only.

    Args:
      texts: by name; others are left alone.
      source: the file, for error messages.

    Raises:
      InputError: if there is no such text, or it cannot be used.
    """
    if EXPORT not in texts:
        raise InputError(
            source,
            expected=f"a model as `{EXPORT_FORMAT.made_by}` writes it",
            received="one that does not say which domains it is for",
        )
    place = f"{source}: {EXPORT}"
    export = EXPORT_FORMAT.from_text(texts[EXPORT], place)
    found = []
    for index, domain in enumerate(export.domains):
        spec = MODEL.from_dict(domain.model, f"{place}: domains[{index}].model")
        if len(spec.plan.domains) != 1:
            raise InputError(
                f"{place}: domains[{index}].model",
                expected="the model of one domain",
                received=", ".join(spec.plan.names),
            )
        found.append(ExportedDomain(spec, domain.fingerprint, domain.any_size))
    return found
