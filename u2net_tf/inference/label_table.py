"""The table of the values in a label map of several domains: domains and classes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from pydantic import Field

from u2net_tf import files, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label
from u2net_tf.plan.limits import MAX_CLASSES
from u2net_tf.schema import Count, Size, Text
from u2net_tf.volumes.anatomy import find_anatomy


@schema.model
class LabelRow:
    """One value of a label map.

    Attributes:
      value: value of the voxels.
      name: displayed name: that of the class, followed by its domain if another domain
        has a class of the same name.
      domain: name of the domain.
      class_name: name of the class in the plan of its domain.
    """

    value: Size
    name: Text
    domain: Text
    class_name: Text = Field(alias="class")


@schema.model
class Overlap:
    """Voxels in which two domains found foreground.

    Attributes:
      domain: the domain whose classes the label map has there.
      hidden: the other domain.
      voxels: number of voxels.
      volume_ml: volume of these voxels, ml.
    """

    domain: Text
    hidden: Text
    voxels: Count
    volume_ml: float


@schema.model
class LabelTable:
    """Content of a label map of several domains.

    Attributes:
      case: name of the scan.
      labels: one row per value, except 0, the background.
      priority: the domains, starting with the one that is never hidden.
      overlaps: one entry per pair of overlapping domains.
    """

    case: Text
    labels: tuple[LabelRow, ...]
    priority: tuple[Text, ...]
    overlaps: tuple[Overlap, ...] = ()


LABEL_TABLE = FileFormat(
    name="a label table",
    made_by="python -m u2net_tf.predict",
    kind=LabelTable,
    oldest=1,
    upgrades=(),
)


def write_label_table(path: pathlib.Path, table: LabelTable) -> None:
    """Writes a label table as JSON, atomically."""
    content = json.dumps(LABEL_TABLE.to_dict(table), indent=2, ensure_ascii=False)
    files.write_text(path, f"{content}\n")


def number_classes(domains: Sequence[Domain]) -> tuple[LabelRow, ...]:
    """Numbers the classes of several domains from 1, in order.

    Raises:
      InputError: if there are more than a label map can have, or if two would have the
        same name.
    """
    classes = [(domain, label) for domain in domains for label in domain.labels[1:]]
    if len(classes) >= MAX_CLASSES:
        raise InputError(
            "`domains`",
            expected=f"at most {MAX_CLASSES - 1} classes in one label map",
            received=len(classes),
            hint="Use `separate_files` to write one for each domain",
        )
    background = domains[0].labels[0].name
    names = [background, *(label.name for _, label in classes)]
    rows = tuple(
        LabelRow(
            value=value,
            name=label.name
            if names.count(label.name) == 1
            else f"{label.name} ({domain.name})",
            domain=domain.name,
            class_name=label.name,
        )
        for value, (domain, label) in enumerate(classes, start=1)
    )
    displayed = [background, *(row.name for row in rows)]
    repeated = [name for name in displayed if displayed.count(name) > 1]
    if repeated:
        raise InputError(
            "`domains`",
            expected="distinct names of classes in one label map",
            received=f"several named {repeated[0]!r}",
            hint="Use `separate_files` to write one for each domain",
        )
    return rows


def merged_domain(domains: Sequence[Domain], rows: Sequence[LabelRow]) -> Domain:
    """Returns a domain with the classes of several, to write their label map.

    Args:
      domains: the domains; fields that a label map does not depend on are those of the
        first.
      rows: their classes, as numbered by `number_classes`.
    """
    background = Label(domains[0].labels[0].name, (0,))
    classes = [label for domain in domains for label in domain.labels[1:]]
    labels = [
        Label(row.name, (row.value,), anatomy=find_anatomy(label))
        for row, label in zip(rows, classes, strict=True)
    ]
    return dataclasses.replace(
        domains[0],
        name=" + ".join(domain.name for domain in domains),
        labels=(background, *labels),
    )
