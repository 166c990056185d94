"""Synthetic surveys without scans, and plans made from them."""

import dataclasses

from data_prep.config import PlanConfig, SplitConfig
from data_prep.plan import choices as plan_choices
from data_prep.plan import plan_domain
from data_prep.survey.examine_case import CaseFacts, Fault
from data_prep.survey.survey_file import DomainFacts


def make_case(domain, name, **changes):
    facts = CaseFacts(
        domain=domain,
        case=name,
        image_path=f"/raw/{domain}/imagesTr/{name}.nii.gz",
        label_path=f"/raw/{domain}/labelsTr/{name}.nii.gz",
        shape=(20, 100, 80),
        spacing_mm=(3.0, 1.0, 1.0),
        box_start=(0, 20, 0),
        box_shape=(20, 60, 80),
        component_shares={"1": (0.995, 1.0), "2": (0.6, 0.995), "foreground": (1, 1)},
    )
    return dataclasses.replace(facts, **changes)


def make_domain(name="Task99_Knee", cases=10, **changes):
    names = [f"patient{i // 2}_frame{i % 2}" for i in range(cases)]
    facts = DomainFacts(
        name=name,
        folder=f"/raw/{name}",
        modalities=("MRI",),
        labels={0: "background", 1: "bone", 2: "cartilage"},
        spacing_source="pixdim",
        cases=tuple(make_case(name, case) for case in names),
    )
    return dataclasses.replace(facts, **changes)


def make_faulty(kind):
    """Returns a domain whose fourth case has this fault, and the name of the case."""
    domain = make_domain()
    fault = Fault(kind, "/raw/bad.nii.gz", "expected this, found that")
    bad = dataclasses.replace(domain.cases[3], faults=(fault,))
    cases = (*domain.cases[:3], bad, *domain.cases[4:])
    return dataclasses.replace(domain, cases=cases), bad.case


def plan_one(facts=None, **choices):
    """Plans one domain without the command line; returns it and the notes.

    Settings of the split have their own names; other choices are those of `Choices`.
    """
    facts = facts or make_domain()
    split = {k: choices.pop(k) for k in SplitConfig.settings() if k in choices}
    config = PlanConfig.from_flat({"survey": "-", "output": "-", **split})
    chosen = dataclasses.replace(
        plan_choices.read_choices(config, [facts.name]), **choices
    )
    planned = plan_domain.plan_domain(facts, chosen)
    return planned.domain, "\n".join(planned.notes)
