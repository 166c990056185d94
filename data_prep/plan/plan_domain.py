"""From the survey of a folder to its entry in the plan."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from data_prep.config import SplitConfig
from data_prep.plan import draw_split, label_classes, network_settings, split_file
from data_prep.plan.draw_split import Split
from data_prep.plan.label_classes import Merges
from data_prep.plan.network_settings import PRESETS
from data_prep.survey.examine_case import CaseFacts, is_usable
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import AXES, Domain, Label, Preprocessing
from u2net_tf.volumes.crop_and_resample import resampled_shape


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the user chose.

    Attributes:
      preprocessing: all of it but the source of the spacing, which is the survey's.
      use_presets: whether published settings are taken where a task has them.
      merges: label merges per domain; they replace those of a preset.
      keep_components: the same for every class, or None for what the survey suggests.
      mirror_axes: the same for every domain, or None: "x", or none where two classes
        are left and right of each other.
      exclude_faulty: leave out cases that cannot be used.
      split: how cases are divided at random, unless they are listed.
      splits: explicit lists per domain, or None.
      splits_file: where those come from.
    """

    preprocessing: Preprocessing
    use_presets: bool
    merges: Merges
    keep_components: int | None
    mirror_axes: tuple[str, ...] | None
    exclude_faulty: bool
    split: SplitConfig
    splits: Mapping[str, Split] | None
    splits_file: str


@dataclasses.dataclass(frozen=True)
class PlannedDomain:
    """A domain, and how it came about.

    Attributes:
      domain: the entry of the plan.
      settings_from: "preset" or "rule".
      notes: what the user should know.
    """

    domain: Domain
    settings_from: str
    notes: tuple[str, ...]


def plan_domain(facts: DomainFacts, choices: Choices) -> PlannedDomain:
    """Plans one domain.

    Raises:
      InputError: names the flag, file or cases that stand in the way.
    """
    cases, excluded = _usable_cases(facts, choices)
    split = _split(facts, cases, excluded, choices)
    preset = PRESETS.get(facts.name) if choices.use_presets else None
    # Test cases decide nothing, not even how predictions are cleaned up.
    training = [case for case in cases if case.case not in split.test]
    keep_components = choices.keep_components
    if keep_components is None and split.folds:
        # Each case is validated on by one of the trainings.
        keep_components = 0
    labels = _labels(facts, training, choices, keep_components)
    preprocessing = dataclasses.replace(
        choices.preprocessing, spacing_source=facts.spacing_source
    )
    spacing_mm = _median(case.spacing_mm for case in cases)
    shapes = [_shape(case, spacing_mm, preprocessing) for case in cases]
    median_shape = tuple(math.floor(size + 0.5) for size in _median(shapes))
    network = (
        preset.network
        if preset
        else network_settings.rule(median_shape, num_cases=len(cases))
    )
    mirror_axes = choices.mirror_axes
    if mirror_axes is None:
        mirror_axes = () if label_classes.has_sides(labels) else ("x",)
    try:
        domain = Domain(
            name=facts.name,
            raw_dir=facts.folder,
            modalities=_distinct(facts.modalities),
            labels=labels,
            spacing_mm=spacing_mm,
            median_shape=median_shape,
            patch_size=network.patch_size,
            pools=network.pools,
            batch_size=network.batch_size,
            mirror_axes=mirror_axes,
            preprocessing=preprocessing,
            train=split.train,
            validation=split.validation,
            test=split.test,
            folds=split.folds,
        )
    except InputError as error:
        raise error.within(facts.name) from None
    notes = [f"{facts.name}: {note}" for note in split.notes]
    if split.folds and choices.keep_components is None:
        notes.append(
            f"{facts.name}: predictions keep all components, since every case is "
            "validated on; set `keep_components` to keep fewer"
        )
    notes += [
        f"{facts.name}: the published patch is longer than the median volume along "
        f"{axis} ({size} and {length} voxels; `preset`=rule fits it)"
        for axis, size, length in zip(
            AXES, network.patch_size, median_shape, strict=True
        )
        if size >= 2 * length
    ]
    notes += [
        f"{facts.name}: class {label.name} joins the values "
        f"{'+'.join(map(str, label.values))}"
        for label in labels
        if len(label.values) > 1
    ]
    notes += [f"{facts.name}: left out {_reason(case)}" for case in excluded]
    return PlannedDomain(domain, "preset" if preset else "rule", tuple(notes))


def _usable_cases(
    facts: DomainFacts, choices: Choices
) -> tuple[list[CaseFacts], list[CaseFacts]]:
    unknown_labels = choices.preprocessing.unknown_labels
    good, bad = [], []
    for case in facts.cases:
        (good if is_usable(case, unknown_labels=unknown_labels) else bad).append(case)
    if bad and not choices.exclude_faulty:
        rows = "".join(f"\n  {_reason(case)}" for case in bad)
        raise InputError(
            facts.name,
            expected="usable cases",
            received=f"{len(bad)} of {len(facts.cases)} with faults",
            hint="Use `exclude_faulty` to leave them out, or `unknown_labels`="
            f"background to treat unknown labels as background:{rows}",
        )
    if not good:
        raise InputError(
            facts.name, expected="at least one usable case", received="none"
        )
    return good, bad


def _reason(case: CaseFacts) -> str:
    return f"{case.case}: {'; '.join(map(str, case.faults))}"


def _split(
    facts: DomainFacts,
    cases: Sequence[CaseFacts],
    excluded: Sequence[CaseFacts],
    choices: Choices,
) -> Split:
    names = [case.case for case in cases]
    if choices.splits is not None:
        return split_file.choose_listed(
            choices.splits[facts.name],
            domain=facts.name,
            cases=names,
            excluded=[case.case for case in excluded],
            source=choices.splits_file,
        )
    return draw_split.draw_split(
        names,
        domain=facts.name,
        **choices.split.flat(),
    )


def _labels(
    facts: DomainFacts,
    cases: Sequence[CaseFacts],
    choices: Choices,
    keep_components: int | None,
) -> tuple[Label, ...]:
    if facts.name in choices.merges:
        merged = choices.merges[facts.name]
    elif choices.use_presets and facts.name in PRESETS:
        # A copy of the task may have joined these labels already.
        merged = {
            name: values
            for name, values in PRESETS[facts.name].merged_labels.items()
            if set(values) <= set(facts.labels)
        }
    else:
        merged = {}
    labels = label_classes.merge_labels(facts.labels, merged, domain=facts.name)
    kept = [
        label_classes.components_to_keep(label, facts, cases=cases)
        if keep_components is None
        else keep_components * (0 not in label.values)
        for label in labels
    ]
    return tuple(
        dataclasses.replace(label, keep_components=count)
        for label, count in zip(labels, kept, strict=True)
    )


def _shape(
    case: CaseFacts,
    spacing_mm: tuple[float, float, float],
    preprocessing: Preprocessing,
) -> tuple[int, int, int]:
    """Shape after cropping and resampling, as `volumes.preprocess` does them."""
    margin = preprocessing.margin_voxels
    crop = tuple(
        min(start + size + margin, length) - max(start - margin, 0)
        for start, size, length in zip(
            case.box_start, case.box_shape, case.shape, strict=True
        )
    )
    try:
        return resampled_shape(
            crop, case.spacing_mm, spacing_mm, rounding=preprocessing.size_rounding
        )
    except InputError as error:
        raise error.within(case.image_path) from None


def _median(triples: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    return tuple(
        round(float(statistics.median(sizes)), 6)
        for sizes in zip(*triples, strict=True)
    )


def _distinct(modalities: Sequence[str]) -> tuple[str, ...]:
    """Numbers the modalities where two have one name."""
    if len(set(modalities)) == len(modalities):
        return tuple(modalities)
    return tuple(f"{name}_{index}" for index, name in enumerate(modalities))
