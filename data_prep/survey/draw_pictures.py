"""Contact sheets of a survey: a slice of every case, the most unusual cases first."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from data_prep.survey.survey_file import DomainFacts
from data_prep.survey.unusual_cases import RankedCase, rank_cases
from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.progress import Progress, silent
from u2net_tf.visualization import case_sheet, figures
from u2net_tf.visualization.thumbnails import load_thumbnail
from u2net_tf.wording import first_few, quantity

_RANKING = (
    "sorted by score: the largest robust z-score of log spacing, log extent and "
    "intensity percentiles 2, 50, 98"
)


def check_folder(folder: pathlib.Path) -> None:
    """Checks, before the survey, that pictures can be drawn and written.

    Raises:
      InputError: if the folder is a file.
      StoppedError: if matplotlib is missing.
      OSError: if nothing can be written there.
    """
    figures.require_matplotlib()
    if folder.exists() and not folder.is_dir():
        raise InputError(
            "`pictures`", expected="a folder", received=f"the file {folder}"
        )
    files.check_writable(folder / "sheet.png")


def thumbnail_path(folder: pathlib.Path, domain: str, case: str) -> pathlib.Path:
    """Returns the file to which a worker writes the thumbnail of a case."""
    return folder / domain / f"{case}.npz"


def draw_pictures(
    domains: Sequence[DomainFacts],
    thumbnails: pathlib.Path,
    output: pathlib.Path,
    *,
    progress: Progress = silent,
) -> list[pathlib.Path]:
    """Draws the sheets of every domain: DOMAIN.png, or DOMAIN.page-1.png, ….

    Sheets of the same domains from an earlier survey are replaced, or removed if there
    are fewer now.

    Args:
      domains: the survey.
      thumbnails: folder of the thumbnails of all cases; see `thumbnail_path`.
      output: folder of the sheets.
      progress: shows how many sheets are drawn.

    Returns:
      The files of the sheets.
    """
    drawn = []
    for domain in progress(domains, "pictures", unit="domain"):
        drawn += _draw_domain(domain, thumbnails, output)
    names = "|".join(re.escape(domain.name) for domain in domains)
    is_ours = re.compile(rf"({names})(\.page-\d+)?\.png").fullmatch
    for path in output.glob("*.png"):
        if is_ours(path.name) and path not in drawn:
            path.unlink()
    return drawn


def _draw_domain(
    domain: DomainFacts, thumbnails: pathlib.Path, output: pathlib.Path
) -> list[pathlib.Path]:
    ranked = [
        item
        for item in rank_cases(domain.cases, domain.modalities)
        if thumbnail_path(thumbnails, domain.name, item.case.case).is_file()
    ]
    shown = {item.case.case for item in ranked}
    missing = [case.case for case in domain.cases if case.case not in shown]
    size = case_sheet.CASES_PER_SHEET
    pages = [ranked[start : start + size] for start in range(0, len(ranked), size)]
    classes = [name for value, name in domain.labels.items() if value]
    sheets = []
    for number, page in enumerate(pages, start=1):
        head = f"{domain.name}: {len(ranked)} of {quantity(len(domain.cases), 'case')}"
        name = domain.name
        if len(pages) > 1:
            head += f", sheet {number} of {len(pages)}"
            # Unlike "Liver-2", "Liver.page-2" is hardly the name of another domain.
            name += f".page-{number}"
        lines = [f"{head}, {_RANKING}"]
        if missing:
            lines.append(f"not shown because of faults: {first_few(missing)}")
        # Not `with_suffix`: there may be a dot in the name.
        path = output / f"{name}.png"
        panels = [_panel(domain, item, thumbnails) for item in page]
        case_sheet.draw_case_sheet(panels, classes, path, title="\n".join(lines))
        sheets.append(path)
    return sheets


def _panel(
    domain: DomainFacts, item: RankedCase, thumbnails: pathlib.Path
) -> case_sheet.Panel:
    faults = item.case.faults
    note = f"{item.measure}, score {item.score:.3g}"
    if faults:
        note += f"\nfault: {first_few([fault.kind for fault in faults])}"
    path = thumbnail_path(thumbnails, domain.name, item.case.case)
    return case_sheet.Panel(item.case.case, note, bool(faults), load_thumbnail(path))
