"""Looks at raw scans before anything is made of them.

    python -m data_prep.survey --raw_dir=raw --output_dir=work

Reads every folder below --raw_dir that is in the layout of the Medical Segmentation
Decathlon and writes survey.csv (a row per case) and survey.json (the same for
`data_prep.plan`). Faults of the data are reported by file and stop nothing. A run
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_prep.config import SurveyConfig
from u2net_tf import command, machine
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from data_prep.survey.survey_file import DomainFacts


def main(config: SurveyConfig) -> None:
    """Surveys what the flags name, writes two files and prints a table."""
    from data_prep.survey import survey_domains, survey_file
    from u2net_tf import files

    datasets = survey_domains.find_domains(config.raw_dir, config.domains)
    output_dir = pathlib.Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise command.InputError(
            "`output_dir`", expected="a folder", received=f"the file {output_dir}"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    partial = output_dir / ".survey.partial.jsonl"
    domains = survey_domains.survey(
        datasets,
        partial=partial,
        spacing_source=config.spacing_source,
        num_workers=config.num_workers or machine.num_cores(),
        progress=command.progress_bar,
        on_resumed=lambda left, total: print(
            f"{partial}: going on with {left} of {quantity(total, 'case')}"
        ),
    )
    csv_path = output_dir / survey_file.CSV_NAME
    json_path = output_dir / survey_file.JSON_NAME
    files.write_text(csv_path, survey_file.to_csv(domains))
    files.write_text(json_path, survey_file.to_json(domains))
    partial.unlink(missing_ok=True)
    _print_report(domains)
    print(f"wrote {csv_path} and {json_path}")


def _print_report(domains: Sequence[DomainFacts]) -> None:
    from data_prep.survey import survey_file

    print(survey_file.table(domains))
    print()
    for title, texts in (
        ("warning", [text for d in domains for text in d.all_warnings]),
        ("fault", [str(fault) for d in domains for fault in d.faults]),
    ):
        for text in texts:
            print(f"{title}: {text}")
    cases = [case for domain in domains for case in domain.cases]
    faulty = sum(bool(case.faults) for case in cases)
    warned = sum(bool(case.warnings) for case in cases)
    count = quantity(len(cases), "case")
    print(f"{count}: {faulty} with faults, {warned} with warnings")


def run() -> None:
    """Entry point of `u2net-survey`."""
    command.start(main, SurveyConfig)


if __name__ == "__main__":
    run()
