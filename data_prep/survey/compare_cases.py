"""Finds problems that only show when the cases of a domain are compared."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from data_prep.survey.examine_case import SAME_IMAGE, SAME_NAME, CaseFacts, Fault
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import require_classes
from u2net_tf.volumes import msd
from u2net_tf.volumes.msd import Dataset
from u2net_tf.wording import escape_controls, first_few, quantity, three_digits

# A voxel size that differs from the median of its domain by a larger factor may be in
# a different unit; slice thicknesses within a dataset differ by less.
_MAX_SPACING_RATIO = 8


def with_duplicate_faults(
    dataset: Dataset, cases: Sequence[CaseFacts]
) -> Iterator[CaseFacts]:
    """Yields the cases, with faults for duplicate names and images added."""
    seen: dict[str, CaseFacts] = {}
    for case in cases:
        extra = []
        if case.case in dataset.duplicates:
            listed = str(dataset.folder / "dataset.json")
            fault = InputError(
                listed,
                expected=f"the case {case.case!r} once",
                received="several entries of this name",
            )
            extra.append(Fault(SAME_NAME, listed, fault.problem))
        if case.checksum in seen:
            other = seen[case.checksum].case
            fault = InputError(
                case.image_path,
                expected="an image that no other case has",
                received=f"the image of case {other!r}",
            )
            extra.append(Fault(SAME_IMAGE, case.image_path, fault.problem))
        elif case.checksum:
            seen[case.checksum] = case
        yield dataclasses.replace(case, faults=(*case.faults, *extra))


def domain_warnings(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[str]:
    """Returns warnings about a domain that are not about a single case."""
    voxels: collections.Counter[str] = collections.Counter()
    for case in cases:
        voxels.update(case.label_voxels)
    source = dataset.folder / "dataset.json"
    warnings = [f"{source}: {note}" for note in dataset.notes]
    if unlisted := msd.unlisted_files(dataset):
        count = quantity(len(unlisted), "volume")
        names = escape_controls(first_few(unlisted))
        warnings.append(f"{source}: {count} without a case: {names}")
    try:
        require_classes(list(dataset.labels.values()))
    except InputError as error:
        # The plan may merge some of them.
        warnings.append(str(error.within(source)))
    warnings += [
        f"{source}: no case contains label {value} ({name})"
        for value, name in dataset.labels.items()
        if not voxels[str(value)]
    ]
    return warnings + _unit_warnings(dataset, cases) + _spacing_warnings(cases)


def _unit_warnings(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[str]:
    """Returns how many images are not in mm, one warning per unit."""
    counts = collections.Counter(case.length_unit for case in cases if case.shape)
    warnings = []
    for unit, count in counts.items():
        if unit == "mm":
            continue
        images = f"{dataset.folder}: {count} of {quantity(len(cases), 'image')}"
        if unit:
            warnings.append(f"{images} with voxel sizes in {unit}, converted to mm")
        else:
            warnings.append(f"{images} without a unit of length; assuming mm")
    return warnings


def _spacing_warnings(cases: Sequence[CaseFacts]) -> list[str]:
    """Returns a warning for each image with unusually large or small voxels."""
    sizes = [case.spacing_mm for case in cases if case.spacing_mm]
    medians = [statistics.median(axis) for axis in zip(*sizes, strict=True)]
    return [
        f"{case.image_path}: voxel size {_in_mm(case.spacing_mm)} (z, y, x), but the "
        f"median of the domain is {_in_mm(medians)}"
        for case in cases
        if any(
            max(size / median, median / size) > _MAX_SPACING_RATIO
            for size, median in zip(case.spacing_mm, medians, strict=False)
        )
    ]


def _in_mm(sizes: Sequence[float]) -> str:
    return " × ".join(map(three_digits, sizes)) + " mm"
