"""The survey on disk: survey.json, survey.csv, and Table 1 on the terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Sequence

from tabulate import tabulate

from data_prep.survey.examine_case import IMAGE, CaseFacts, Fault
from data_prep.survey.measurements import PERCENTILES
from u2net_tf import migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.preprocessing import SpacingSource
from u2net_tf.schema import Text
from u2net_tf.wording import quantity, three_digits

JSON_NAME = "survey.json"
CSV_NAME = "survey.csv"


@schema.model
class DomainFacts:
    """One folder of the survey.

    Attributes:
      name: the folder's name.
      folder: path of the folder.
      modalities: names in the order of the channels.
      labels: raw value -> name.
      spacing_source: "pixdim" or "affine".
      round_labels: whether label values that are nearly integers are rounded.
      resample_modalities: whether modalities in separate files are resampled to the
        grid of the first one if their grids differ.
      cases: the cases, sorted by name.
      ignore_label: raw value of voxels without annotation; None if there is none.
      regions: name -> raw values of a union of classes.
      warnings: warnings that are not about a single case.
    """

    name: Text
    folder: Text
    modalities: tuple[str, ...]
    labels: dict[int, str]
    spacing_source: SpacingSource
    cases: tuple[CaseFacts, ...]
    round_labels: bool = False
    resample_modalities: bool = False
    ignore_label: int | None = None
    regions: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [case.case for case in self.cases]
        schema.require_distinct("cases", names, "distinct names")
        for case in self.cases:
            _check_case(case, self.name)
            _check_intensities(case, len(self.modalities))

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of all cases."""
        return tuple(fault for case in self.cases for fault in case.faults)

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The folder's warnings and those of all cases."""
        return self.warnings + tuple(w for case in self.cases for w in case.warnings)


def _check_case(case: CaseFacts, domain: str) -> None:
    """Checks that a case has all measurements that the plan relies on."""
    if case.domain != domain:
        raise InputError(
            f"cases: {case.case}: domain", expected=domain, received=case.domain
        )
    lengths = {len(case.shape), len(case.spacing_mm)}
    box = {len(case.box_start), len(case.box_shape)}
    is_complete = lengths == {3} and box == {3}
    is_inside = all(
        start + size <= length
        for start, size, length in zip(
            case.box_start, case.box_shape, case.shape, strict=False
        )
    )
    is_unread = any(fault.kind == IMAGE for fault in case.faults)
    if not (is_complete or (is_unread and lengths | box <= {0, 3})) or not is_inside:
        raise InputError(
            f"cases: {case.case}",
            expected="shape, spacing_mm and a box in the volume, three numbers each",
            received=f"{case.shape}, {case.spacing_mm}, {case.box_start} and "
            f"{case.box_shape}",
        )


def _check_intensities(case: CaseFacts, num_modalities: int) -> None:
    foreground = case.foreground_intensities
    is_unread = any(fault.kind == IMAGE for fault in case.faults)
    # A modality without finite voxels has no percentiles, and the image a fault.
    lengths = [len(row) for row in case.percentiles if row or not is_unread]
    if foreground and not is_unread and len(foreground) != num_modalities:
        raise InputError(
            f"cases: {case.case}: foreground_intensities",
            expected=f"one entry per modality, {num_modalities}",
            received=len(foreground),
        )
    # A case with the wrong number of modalities has a fault that reports this.
    expected = len(lengths) if case.faults else num_modalities
    if lengths and lengths != [len(PERCENTILES)] * expected:
        raise InputError(
            f"cases: {case.case}: percentiles",
            expected=f"{len(PERCENTILES)} numbers for each of "
            f"{quantity(num_modalities, 'modality', 'modalities')}",
            received=case.percentiles,
        )


@schema.model
class Survey:
    """The content of survey.json."""

    domains: tuple[DomainFacts, ...]

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        schema.require_distinct("domains", names, "distinct names")


SURVEY = FileFormat(
    name="a survey",
    made_by="python -m data_prep.survey",
    kind=Survey,
    oldest=1,
    upgrades=(
        migrations.survey,
        migrations.survey_units,
        migrations.survey_with_resampling,
        migrations.survey_with_foreground,
        migrations.survey_with_regions,
    ),
)


def to_json(domains: Sequence[DomainFacts]) -> str:
    """Returns the survey as JSON, one line per case."""
    content = SURVEY.to_dict(Survey(tuple(domains)))
    parts = []
    for fields in content.pop("domains"):
        rows = [_dump(case) for case in fields.pop("cases")]
        body = ",\n   ".join(rows)
        parts.append(f'{_dump(fields)[:-1]}, "cases": [\n   {body}\n  ]}}')
    inner = ",\n  ".join(parts)
    return f'{_dump(content)[:-1]}, "domains": [\n  {inner}\n]}}\n'


def load_survey(path: str | os.PathLike) -> tuple[DomainFacts, ...]:
    """Reads a survey.

    Args:
      path: survey.json, or its folder.

    Raises:
      InputError: if there is no such file or it is not a survey.
    """
    path = pathlib.Path(path)
    return SURVEY.load(path / JSON_NAME if path.is_dir() else path).domains


def to_csv(domains: Sequence[DomainFacts]) -> str:
    """Returns a row per case; columns of modalities or labels it lacks are empty."""
    cases = [case for domain in domains for case in domain.cases]
    channels = max((len(case.percentiles) for case in cases), default=0)
    values = sorted({int(value) for case in cases for value in case.label_voxels})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["domain", "case", "image", "label", "orientation"]
        + [f"shape_{axis}" for axis in "zyx"]
        + [f"spacing_{axis}_mm" for axis in "zyx"]
        + [f"modality{c}_p{p}" for c in range(channels) for p in PERCENTILES]
        + ["nonzero_share", "box_share"]
        + [f"label{value}_voxels" for value in values]
        + ["faults", "warnings"]
    )
    for case in cases:
        numbers: list[str] = []
        for row in case.percentiles:
            # Empty for a modality without finite voxels.
            numbers += [f"{value:.7g}" for value in row] or [""] * len(PERCENTILES)
        numbers += [""] * (channels * len(PERCENTILES) - len(numbers))
        writer.writerow(
            [case.domain, case.case, case.image_path, case.label_path]
            + [case.orientation, *(case.shape or [""] * 3)]
            + [*(case.spacing_mm or [""] * 3)]
            + numbers
            + [_format_fraction(case.nonzero_share), _format_fraction(case.box_share)]
            + [case.label_voxels.get(str(value), "") for value in values]
            + ["; ".join(map(str, case.faults)), "; ".join(case.warnings)]
        )
    return text.getvalue()


def format_domains(domains: Sequence[DomainFacts]) -> str:
    """Returns Table 1 of the paper for these domains: modality, cases, sizes."""
    rows = []
    for domain in domains:
        shapes = [case.shape for case in domain.cases if case.shape]
        spacings = [case.spacing_mm for case in domain.cases if case.spacing_mm]
        rows.append(
            [
                domain.name,
                ", ".join(domain.modalities),
                len(domain.cases),
                _ranges(shapes),
                _ranges(spacings),
                len(domain.faults),
                len(domain.all_warnings),
            ]
        )
    headers = ["domain", "modality", "cases", "shape (z × y × x)"]
    headers += ["spacing mm (z × y × x)", "faults", "warnings"]
    left, right = "left", "right"
    return tabulate(
        rows,
        headers=headers,
        tablefmt="simple",
        colalign=(left, left, right, left, left, right, right),
        disable_numparse=True,
    )


def _ranges(triples: Sequence[Sequence[float]]) -> str:
    if not triples:
        return "–"
    parts = []
    for sizes in zip(*triples, strict=True):
        low, high = three_digits(min(sizes)), three_digits(max(sizes))
        parts.append(low if low == high else f"{low}–{high}")
    return " × ".join(parts)


def _format_fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
