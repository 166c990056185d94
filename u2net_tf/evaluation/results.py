"""The result of scoring cases, and the files that it is written to."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.evaluation import scores_csv, tables
from u2net_tf.plan.domains import Domain


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate_model` and `score_label_maps`.

    Attributes:
      rows: the scores per class.
      regions: the scores per region.
      num_cases: number of cases that were scored.
      checkpoint: see `tables.Summary`.
      output_dir: folder of the files that were written.
      skipped: "domain/case" -> reason of the cases that could not be used.
    """

    rows: tuple[tables.ClassScore, ...]
    regions: tuple[tables.ClassScore, ...]
    num_cases: int
    checkpoint: str
    output_dir: pathlib.Path
    skipped: dict[str, InputError]

    def table(self, surface_tolerance_mm: float | None) -> str:
        """Formats the scores; see `tables.format_table`."""
        return tables.format_table(
            self.rows, self.regions, surface_tolerance_mm=surface_tolerance_mm
        )

    @property
    def num_all(self) -> int:
        """Number of cases, including those that could not be used."""
        return self.num_cases + len(self.skipped)


def require_scores(
    scores: Sequence[tables.CaseScore], skipped: Mapping[str, InputError], where: str
) -> None:
    """Checks that at least one case was scored.

    Args:
      scores: the scores of all cases.
      skipped: "domain/case" -> reason of the cases that could not be used; not empty if
        no case was scored.
      where: the setting that the cases come from, for the error message.

    Raises:
      InputError: if no case was scored.
    """
    if not scores:
        raise InputError(
            where,
            expected="at least one usable case",
            received="none",
            hint=f"The first problem is: {next(iter(skipped.values()))}",
        )


def summary_fields(
    scores: Sequence[tables.CaseScore],
    domains: Sequence[Domain],
    skipped: Mapping[str, InputError],
) -> dict[str, Any]:
    """Returns the fields of `tables.Summary` that follow from the scores.

    Args:
      scores: the scores of all cases.
      domains: the domains, with the regions that were scored.
      skipped: "domain/case" -> reason of the cases that could not be used.
    """
    rows = tables.summarize(scores, domains)
    return {
        "mean_dice": tables.mean_dice(rows),
        "classes": tuple(rows),
        "skipped": {name: str(error) for name, error in skipped.items()},
        "regions": tuple(tables.summarize_regions(scores, domains)),
        "region_classes": {
            f"{domain.name}/{region.name}": region.classes
            for domain in domains
            for region in domain.regions
        },
    }


def write(
    output_dir: pathlib.Path,
    scores: Sequence[tables.CaseScore],
    summary: tables.Summary,
    skipped: dict[str, InputError],
) -> Evaluation:
    """Writes `dice.csv` and `summary.json`.

    Args:
      output_dir: folder of the files.
      scores: the scores of all cases.
      summary: the summary.
      skipped: "domain/case" -> reason of the cases that could not be used.
    """
    files.write_text(output_dir / "dice.csv", scores_csv.to_csv(scores))
    files.write_text(output_dir / "summary.json", tables.summary_to_json(summary))
    return Evaluation(
        summary.classes,
        summary.regions,
        len(scores),
        summary.checkpoint,
        output_dir,
        skipped,
    )
