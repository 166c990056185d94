"""The classes of a domain, their values in label maps, and unions of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.plan import limits
from u2net_tf.plan.anatomy import Anatomy
from u2net_tf.schema import Count, Text
from u2net_tf.wording import first_few

# Some JSON parsers store numbers as float64, in which larger integers are not exact.
MIN_LABEL, MAX_LABEL = -(2**53) + 1, 2**53 - 1
LabelValue = Annotated[int, Field(ge=MIN_LABEL, le=MAX_LABEL)]


def require_classes(names: Sequence[str]) -> None:
    """Raises InputError if a network cannot have classes of these names."""
    if not 2 <= len(names) <= limits.MAX_CLASSES:
        raise InputError(
            "labels",
            expected=f"2 to {limits.MAX_CLASSES} classes, including the background",
            received=len(names),
        )
    schema.require_distinct("labels", names, "distinct names")


@schema.model
class Label:
    """One class of a domain.

    Attributes:
      name: name in `dataset.json` or set with `--merge_labels`.
      values: values of this class in raw label maps; several if labels were merged.
        Predictions are written with the first one.
      keep_components: number of largest connected components of this class to keep in
        predictions; 0 keeps all.
      anatomy: code in DICOM segmentations and 3D Slicer; None for the SNOMED CT code of
        the name, if it has one (`volumes.anatomy`).
    """

    name: Text
    values: Annotated[tuple[LabelValue, ...], Field(min_length=1)]
    keep_components: Count = 0
    anatomy: Anatomy | None = None


@schema.model
class Region:
    """A union of classes, such as a whole tumour.

    It is scored like a class, and may enter the loss.

    Attributes:
      name: name in `dataset.json` or set with `--regions`.
      classes: names of the classes that it consists of.
    """

    name: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        schema.require_distinct("classes", self.classes, "each class once")

    def class_indices(self, labels: Sequence[Label]) -> tuple[int, ...]:
        """Returns the indices of its classes, ascending.

        Args:
          labels: the classes of the domain.
        """
        names = [label.name for label in labels]
        return tuple(sorted(names.index(name) for name in self.classes))


def check_labels(labels: Sequence[Label], ignore_label: int | None) -> None:
    """Checks the classes of a domain together.

    Args:
      labels: the classes, the background first.
      ignore_label: see `Domain`.

    Raises:
      InputError: if a name or value is repeated, the first class is not the background,
        or a network cannot have so many classes.
    """
    require_classes([label.name for label in labels])
    values = [value for label in labels for value in label.values]
    schema.require_distinct("labels", values, "each value in one class only")
    if 0 not in labels[0].values:
        raise InputError(
            "labels",
            expected="the background, with value 0, as the first class",
            received=values,
        )
    if ignore_label is None:
        return
    if ignore_label in values:
        raise InputError(
            "ignore_label",
            expected="a value that belongs to no class",
            received=ignore_label,
        )
    # Records store `Domain.ignore_index` in the same byte as the index of a class.
    if len(labels) == limits.MAX_CLASSES:
        raise InputError(
            "labels",
            expected=f"at most {limits.MAX_CLASSES - 1} classes besides an ignore "
            "label",
            received=len(labels),
        )


def check_regions(regions: Sequence[Region], labels: Sequence[Label]) -> None:
    """Checks the regions of a domain.

    Args:
      regions: the regions.
      labels: the classes, the background first.

    Raises:
      InputError: if a name is repeated or that of a class, or a region contains the
        background or an unknown class.
    """
    _, *classes = (label.name for label in labels)
    names = [label.name for label in labels] + [region.name for region in regions]
    schema.require_distinct("regions", names, "names that no class has, each once")
    for region in regions:
        if others := sorted(set(region.classes) - set(classes)):
            raise InputError(
                f"regions: {region.name}",
                expected=f"foreground classes: {first_few(classes, limit=20)}",
                received=first_few(others),
            )
