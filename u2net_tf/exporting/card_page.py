"""The model card as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_card import (
    Card,
    ClassDice,
    DomainCard,
    RegionDice,
    Training,
    percent,
)
from u2net_tf.models.model_file_format import Member, PackedDomain
from u2net_tf.plan.domains import Domain
from u2net_tf.wording import quantity

_NOT_GIVEN = "Not given."
_HEADINGS = {
    "intended_use": "Intended use",
    "limitations": "Limitations",
    "licence": "Licence",
    "authors": "Authors",
    "contact": "Contact",
    "citation": "Citation",
}


def write_page(
    card: Card,
    packed: Sequence[PackedDomain],
    exported: Sequence[ExportedDomain],
    *,
    members: Sequence[Member],
    versions: Mapping[str, str],
) -> str:
    """Returns the page.

    Args:
      card: content of the card.
      packed: the domains.
      exported: the same domains, with their plans.
      members: members of the file, whose hashes are listed.
      versions: name of a package -> its version.
    """
    parts = [f"# {_text(card.texts.title or 'Model card')}"]
    for name, heading in _HEADINGS.items():
        text = getattr(card.texts, name)
        parts += [f"## {heading}", _NOT_GIVEN if text is None else _text(text)]
    for domain, about, each in zip(packed, card.domains, exported, strict=True):
        parts += _domain(domain, about, each, card.texts.data.get(domain.name))
    parts += [
        "## Members",
        _table(
            ["member", "bytes", "SHA-256"],
            [(each.name, f"{each.size:,}", f"`{each.sha256}`") for each in members],
        ),
        "model.json contains these hashes and that of this page.",
        "## Versions",
        _table(["package", "version"], list(versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _domain(
    packed: PackedDomain, about: DomainCard, exported: ExportedDomain, data: str | None
) -> list[str]:
    (domain,) = exported.spec.plan.domains
    spacing = " × ".join(f"{length:g}" for length in domain.spacing_mm)
    size = " × ".join(map(str, domain.patch_size))
    cases = about.cases
    return [
        f"## {_text(packed.name)}",
        _table(
            ["index", "class", "value in label maps", "colour"],
            [(e.index, _cell(e.name), e.value, e.colour or "") for e in packed.labels],
        ),
        *_annotation(domain),
        f"Input: {', '.join(map(_text, domain.modalities))}; resampled to {spacing} mm "
        f"(z, y, x); patches of {size} voxels. Graph: {packed.graph}.",
        f"### Data\n\n{_NOT_GIVEN if data is None else _text(data)}",
        f"Cases: {cases.train} for training, {cases.validation} for validation, "
        f"{cases.test} for testing.",
        f"### Training\n\n{_training(about)}",
        f"### Dice\n\n{_dice(about)}",
    ]


def _annotation(domain: Domain) -> list[str]:
    """Returns what its classes do not say about the reference label maps."""
    parts = []
    if domain.regions:
        regions = (
            f"{_text(region.name)} ({', '.join(map(_text, region.classes))})"
            for region in domain.regions
        )
        parts.append(f"Regions: {'; '.join(regions)}.")
    if domain.ignore_label is not None:
        parts.append(
            f"In the reference label maps, voxels of the value {domain.ignore_label} "
            "are not annotated. They count neither in the training nor in the Dice."
        )
    return parts


def _training(about: DomainCard) -> str:
    run = about.training
    version = about.written_by or "an unknown version"
    source = f"{about.checkpoint}, written by {version}"
    pruned = "" if about.pruned_to is None else f" Pruned to depth {about.pruned_to}."
    if run is None:
        return f"Not recorded: the model was composed or ported. {source}.{pruned}"
    return f"{_run(run)} {source}.{pruned}"


def _run(run: Training) -> str:
    end = "ended" if run.finished else "not ended"
    parts = [
        f"{quantity(run.steps, 'step')} over all domains of the run",
        f"{quantity(run.epochs, 'epoch')}, {end} by the learning-rate schedule",
    ]
    if not run.trained:
        parts.append("this domain's weights unchanged")
    if run.shared_variables is False:
        parts.append("shared weights frozen")
    if run.precision is not None:
        parts.append(f"computed in {run.precision}")
    if run.fold is not None:
        parts.append(f"validated on fold {run.fold}")
    return f"{'; '.join(parts)}."


def _dice(about: DomainCard) -> str:
    found = about.evaluation
    if found is None:
        return _NOT_GIVEN
    skipped = quantity(found.num_skipped, "case")
    parts = [
        f"{found.checkpoint} on the {found.split} cases; {skipped} could not be scored."
    ]
    if found.lists_training_cases is False and found.split != "train":
        parts.append(
            "The model did not name all cases that it was trained on, so whether some "
            f"of the {found.split} cases are among them is unknown."
        )
    columns = ["Dice %", "± sd", "cases", "absent"]
    rows = [(_cell(row.label), *_score(row)) for row in found.classes]
    parts.append(_table(["class", *columns], rows))
    if found.regions:
        rows = [
            (_cell(row.label), _cell(_classes(row)), *_score(row))
            for row in found.regions
        ]
        parts.append(_table(["region", "classes", *columns], rows))
    return "\n\n".join(parts)


def _score(row: ClassDice) -> tuple[object, ...]:
    deviation = percent(row.standard_deviation)
    return percent(row.mean), deviation, row.num_cases, row.num_absent


def _classes(row: RegionDice) -> str:
    return "not recorded" if row.classes is None else ", ".join(row.classes)


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _text(text: str) -> str:
    """Escapes lines of a text that would be headings."""
    lines = text.strip().splitlines()
    return "\n".join(f"\\{line}" if line.startswith("#") else line for line in lines)


def _cell(text: str) -> str:
    """Escapes a text for a cell of a table."""
    return text.replace("|", "\\|")
