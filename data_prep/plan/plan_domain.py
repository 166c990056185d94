"""Plans a domain: from its survey to its entry in the plan."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

from data_prep.plan import (
    draw_split,
    mirroring,
    network_settings,
    plan_labels,
    pool_intensities,
    split_file,
)
from data_prep.plan.choices import Choices
from data_prep.plan.draw_split import CaseSplit
from data_prep.plan.fitting_cases import all_usable, fitting_cases, reason
from data_prep.plan.measure_ranges import measure_ranges
from data_prep.plan.network_settings import PRESETS, NetworkSettings
from data_prep.plan.pool_intensities import PooledStatistics
from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import AXES, Domain
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.wording import first_few


@dataclasses.dataclass(frozen=True)
class PlannedDomain:
    """A planned domain.

    Attributes:
      domain: the entry of the plan.
      settings_from: source of the network settings, "preset" or "rule".
      notes: notes for the user.
    """

    domain: Domain
    settings_from: str
    notes: tuple[str, ...]


def plan_domain(facts: DomainFacts, choices: Choices) -> PlannedDomain:
    """Plans one domain.

    Raises:
      InputError: if a setting, a file or a case cannot be used.
    """
    cases, excluded, sizes = fitting_cases(facts, choices)
    split = _split(facts, cases, excluded, choices)
    # Voxels of test cases must not affect any decision, not even on postprocessing.
    training = [case for case in cases if case.case not in split.test]
    labels = plan_labels.plan_labels(facts, training, choices, folds=bool(split.folds))
    regions = plan_labels.plan_regions(facts, choices, labels)
    pooled = _pool_intensities(facts, training, labels, choices)
    if pooled.statistics is None and not all_usable(cases, choices):
        return _plan_scan_by_scan(facts, choices, pooled)
    z, y, x = (math.floor(size + 0.5) for size in sizes.median_shape)
    network, source = _choose_network(facts, choices, (z, y, x), len(cases))
    try:
        domain = Domain(
            name=facts.name,
            raw_dir=facts.folder,
            modalities=facts.modalities,
            labels=labels,
            ignore_label=facts.ignore_label,
            regions=regions,
            spacing_mm=sizes.spacing_mm,
            median_shape=(z, y, x),
            patch_size=network.patch_size,
            pools=network.pools,
            batch_size=network.batch_size,
            mirror_axes=mirroring.choose_axes(labels, choices.mirror_axes),
            preprocessing=_preprocessing(facts, choices, pooled),
            keep_foreground_components=plan_labels.keep_foreground(
                facts, labels, training, choices, folds=bool(split.folds)
            ),
            train=split.train,
            validation=split.validation,
            test=split.test,
            folds=split.folds,
            scans=measure_ranges(cases),
        )
    except InputError as error:
        raise error.within(facts.name) from None
    notes = [
        *split.notes,
        *_leak_notes(split, choices),
        *_notes(domain, network, choices),
        *pooled.notes,
        *(f"left out {reason(case)}" for case in excluded),
    ]
    return PlannedDomain(domain, source, _named(facts, notes))


def _named(facts: DomainFacts, notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{facts.name}: {note}" for note in notes)


def _plan_scan_by_scan(
    facts: DomainFacts, choices: Choices, pooled: PooledStatistics
) -> PlannedDomain:
    """Plans a domain without the statistics that decided which cases are usable."""
    scan_by_scan = dataclasses.replace(choices, normalization="scan")
    planned = plan_domain(facts, scan_by_scan)
    notes = (*planned.notes, *_named(facts, pooled.notes))
    return dataclasses.replace(planned, notes=notes)


def _choose_network(
    facts: DomainFacts, choices: Choices, shape: tuple[int, int, int], num_cases: int
) -> tuple[NetworkSettings, str]:
    """Returns network settings, a preset if its patch fits, and their source."""
    if choices.use_presets and facts.name in PRESETS:
        network = PRESETS[facts.name].network
        if math.prod(network.patch_size) <= choices.max_patch_voxels:
            return network, "preset"
    network = network_settings.plan_network_settings(
        shape, num_cases=num_cases, max_patch_voxels=choices.max_patch_voxels
    )
    return network, "rule"


def _leak_notes(split: CaseSplit, choices: Choices) -> Iterable[str]:
    """Yields notes on patients who may be in several splits, judging by case names."""
    groups = (split.train, split.validation, split.test, *split.folds)
    all_cases = [case for group in groups for case in group]
    expression = draw_split.suggest_split_by(all_cases)
    if not expression:
        return
    places: dict[str, set[int]] = {}
    for index, group in enumerate(groups):
        for case in group:
            if match := re.search(expression, case):
                places.setdefault(match[1], set()).add(index)
    divided = sorted(patient for patient, indices in places.items() if len(indices) > 1)
    if choices.splits is not None:
        if divided:
            yield f"the lists have cases of {first_few(divided)} in different splits"
    elif divided or not choices.split.split_by:
        yield (
            "case names suggest that some patients may have cases in different splits; "
            f"`split_by`='{expression}' keeps the cases of a patient together"
        )


def _notes(domain: Domain, network: NetworkSettings, choices: Choices) -> Iterable[str]:
    if domain.folds and choices.keep_components is None:
        yield (
            "predictions keep all components of each class, since every case is a "
            "validation case; set `keep_components` to keep fewer"
        )
    yield from mirroring.notes(domain, choices.mirror_axes)
    for axis, size, length in zip(
        AXES, network.patch_size, domain.median_shape, strict=True
    ):
        if size >= 2 * length:
            yield (
                f"the published patch is longer than the median volume along {axis} "
                f"({size} and {length} voxels); `preset`=rule plans a shorter one"
            )
    if max(domain.median_shape) < 2 * network_settings.MIN_AXIS:
        shape = " × ".join(map(str, domain.median_shape))
        yield f"the median volume has only {shape} voxels; check the spacing"
    for label in domain.labels:
        if len(label.values) > 1:
            values = "+".join(map(str, label.values))
            yield f"class {label.name} merges the values {values}"


def _pool_intensities(
    facts: DomainFacts,
    cases: Sequence[CaseFacts],
    labels: Sequence[Label],
    choices: Choices,
) -> PooledStatistics:
    try:
        return pool_intensities.choose_statistics(
            facts,
            cases,
            labels,
            normalization=choices.normalization,
            preprocessing=choices.preprocessing,
        )
    except InputError as error:
        raise error.within(facts.name) from None


def _preprocessing(
    facts: DomainFacts, choices: Choices, pooled: PooledStatistics
) -> Preprocessing:
    return dataclasses.replace(
        choices.preprocessing,
        spacing_source=facts.spacing_source,
        round_labels=facts.round_labels,
        resample_modalities=facts.resample_modalities,
        intensity_statistics=pooled.statistics,
    )


def _split(
    facts: DomainFacts,
    cases: Sequence[CaseFacts],
    excluded: Sequence[CaseFacts],
    choices: Choices,
) -> CaseSplit:
    names = [case.case for case in cases]
    if choices.splits is not None:
        return split_file.split_from_file(
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
