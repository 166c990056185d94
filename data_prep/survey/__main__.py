"""Checks raw scans before preprocessing.

  python -m data_prep.survey --raw_dir=raw --output_dir=work

Reads every folder in --raw_dir that has the layout of the Medical Segmentation
Decathlon or of nnU-Net's raw data, and writes survey.csv (a row per case) and
survey.json (the same data for `data_prep.plan`). Problems are reported per file and do
not stop the run, but if the dataset.json of one of --domains cannot be used, the exit
status is 1. An interrupted run resumes where it left off when rerun. With
--pictures=DIR, contact sheets are drawn as well: a slice of every case with its labels,
the most unusual cases first.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data_prep.config import SurveyConfig
from u2net_tf import command
from u2net_tf.errors import InputError
from u2net_tf.wording import escape_controls, first_few, quantity

if TYPE_CHECKING:
    from data_prep.survey.survey_file import DomainFacts


def main(config: SurveyConfig) -> None:
    """Surveys the domains, writes survey.csv and survey.json and prints a table."""
    from data_prep.survey import survey_domains, survey_file

    unusable: dict[str, InputError] = {}
    domains, pictures = survey_domains.write_survey(
        config,
        progress=command.progress_every(config.log.log_every_seconds),
        on_resumed=_print_resumed,
        unusable=unusable,
    )
    _print_report(domains, unusable)
    output_dir = pathlib.Path(config.output_dir)
    names = (survey_file.CSV_NAME, survey_file.JSON_NAME)
    print("wrote " + " and ".join(str(output_dir / name) for name in names))
    for picture in pictures:
        print(f"drew {picture}")
    if config.domains:
        num_domains = len(domains) + len(unusable)
        command.exit_if_skipped(unusable, num_domains, "domain")


def _print_resumed(log: pathlib.Path, num_pending: int, num_cases: int) -> None:
    print(f"{log}: resuming with {num_pending} of {quantity(num_cases, 'case')}")


def _print_report(
    domains: Sequence[DomainFacts], unusable: Mapping[str, InputError]
) -> None:
    from data_prep.survey import survey_file

    print(survey_file.format_domains(domains))
    print()
    for title, texts in (
        ("warning", [text for d in domains for text in d.all_warnings]),
        ("fault", list(map(str, unusable.values()))),
        ("fault", [str(fault) for d in domains for fault in d.faults]),
    ):
        for text in texts:
            print(f"{title}: {command.name_flags(text)}")
    cases = [case for domain in domains for case in domain.cases]
    faulty = sum(bool(case.faults) for case in cases)
    warned = sum(bool(case.warnings) for case in cases)
    count = quantity(len(cases), "case")
    print(f"{count}: {faulty} with faults, {warned} with warnings")
    if unusable:
        print(f"not surveyed: {escape_controls(first_few(list(unusable)))}")


def run() -> None:
    """Entry point of `u2net-survey`."""
    command.start(main, SurveyConfig)


if __name__ == "__main__":
    run()
