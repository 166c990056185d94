"""Which value of a label map of several domains is which class of which domain."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from pydantic import Field

from u2net_tf import files, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import Domain, Label
from u2net_tf.plan.limits import MAX_CLASSES
from u2net_tf.schema import Count, Size, Text


@schema.model
class LabelRow:
    """One value of a label map.

    Attributes:
      value: the value.
      name: as programs show it: that of the class, with its domain if another domain
        has a class of this name.
      domain: the domain.
      class_name: the class.
    """

    value: Size
    name: Text
    domain: Text
    class_name: Text = Field(alias="class")


@schema.model
class Overlap:
    """Where two domains found something in the same voxels.

    Attributes:
      domain: the one whose classes the label map holds there.
      hidden: the other one.
      voxels: how many they are.
      volume_ml: their volume.
    """

    domain: Text
    hidden: Text
    voxels: Count
    volume_ml: float


@schema.model
class LabelTable:
    """What a label map of several domains holds.

    Attributes:
      case: the scan.
      labels: a row per value but 0, the background.
      priority: the domains, from the one that is never hidden on.
      overlaps: of each two domains that overlap.
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
    """Writes a label table as JSON: whole or not at all."""
    content = json.dumps(LABEL_TABLE.to_dict(table), indent=2, ensure_ascii=False)
    files.write_text(path, f"{content}\n")


def number_classes(domains: Sequence[Domain]) -> tuple[LabelRow, ...]:
    """Numbers the classes of several domains from 1, in their order.

    Raises:
      InputError: if they are more than a label map holds.
    """
    classes = [(domain, label) for domain in domains for label in domain.labels[1:]]
    if len(classes) >= MAX_CLASSES:
        raise InputError(
            "`domains`",
            expected=f"at most {MAX_CLASSES - 1} classes in one label map",
            received=len(classes),
            hint="Use `separate_files` to write one for each domain",
        )
    names = [label.name for _, label in classes]
    return tuple(
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


def merged_domain(domains: Sequence[Domain], rows: Sequence[LabelRow]) -> Domain:
    """A domain with the classes of several, by which their label map is written.

    Args:
      domains: the domains; the first gives what a label map does not depend on.
      rows: their classes.
    """
    background = Label(domains[0].labels[0].name, (0,))
    return dataclasses.replace(
        domains[0],
        name=" + ".join(domain.name for domain in domains),
        labels=(background, *(Label(row.name, (row.value,)) for row in rows)),
    )
