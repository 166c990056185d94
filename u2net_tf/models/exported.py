"""Reads and writes the metadata of exported models, without TensorFlow.

The same JSON texts are assets of a SavedModel, metadata of an ONNX file and runtime
information at the root of an OpenVINO model. `export` is read by this package, which
needs no other file to predict with the model; `plan` and `labels` are for people and
other programs.
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
# Names in exported files: input and output, the prefix of a domain's signature, and
# where the texts are in ONNX files and OpenVINO models.
INPUT, OUTPUT = "patches", "probabilities"
SIGNATURE = "segment_"
METADATA_PREFIX = "u2net_tf."
OPENVINO_ROOT = "u2net_tf"


@dataclasses.dataclass(frozen=True)
class ExportedDomain:
    """One domain of an exported model.

    Attributes:
      spec: specification of a model of this domain alone, without case names.
      fingerprint: hash of its weights and of its pruning.
      any_size: whether it accepts patches of any size divisible by 2**pools; otherwise
        patches must have the domain's patch size.
    """

    spec: ModelSpec
    fingerprint: str
    any_size: bool

    @classmethod
    def of_model(
        cls, spec: ModelSpec, domain: int, *, fingerprint: str, any_size: bool = False
    ) -> ExportedDomain:
        """Describes one domain of a model that may have several.

        Args:
          spec: specification of the model.
          domain: index of the domain.
          fingerprint: see the class.
          any_size: see the class.
        """
        without_cases = without_case_names(spec)
        name = without_cases.plan.names[domain]
        single = dataclasses.replace(
            without_cases,
            plan=without_cases.plan.select([name]),
            case_counts=(without_cases.count_cases(domain),),
        )
        return cls(single, fingerprint, any_size)

    @property
    def name(self) -> str:
        """Name of the domain."""
        return self.spec.plan.names[0]


@schema.model
class _Domain:
    """`ExportedDomain` on disk; `model` is in the format `models.spec.MODEL`."""

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
    """Reads the text `EXPORT` of those that `to_texts` returned.

    Args:
      texts: name -> text; other texts are ignored.
      source: the file, for error messages.

    Raises:
      InputError: if the text is missing or invalid.
    """
    if EXPORT not in texts:
        raise InputError(
            source,
            expected=f"a model written by `{EXPORT_FORMAT.made_by}`",
            received="one without a description of its domains",
        )
    place = f"{source}: {EXPORT}"
    export = EXPORT_FORMAT.from_text(texts[EXPORT], place)
    found = []
    for index, domain in enumerate(export.domains):
        spec = MODEL.from_dict(domain.model, f"{place}: domains[{index}].model")
        if len(spec.plan.domains) != 1:
            raise InputError(
                f"{place}: domains[{index}].model",
                expected="a model of one domain",
                received=", ".join(spec.plan.names),
            )
        found.append(ExportedDomain(spec, domain.fingerprint, domain.any_size))
    return found
