"""Formats a plan as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from data_prep.plan.plan_domain import PlannedDomain
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.preprocessing import Preprocessing

_LEFT, _RIGHT = "left", "right"
# Title and alignment of each column.
_COLUMNS = {
    "domain (z × y × x)": _LEFT,
    "spacing mm": _LEFT,
    "median shape": _LEFT,
    "patch": _LEFT,
    "pools": _LEFT,
    "batch": _RIGHT,
    "mirror": _LEFT,
    "train": _RIGHT,
    "validation": _RIGHT,
    "test": _RIGHT,
    "settings": _LEFT,
}


def format_plan(planned: Sequence[PlannedDomain]) -> str:
    """Returns a table of the domains, followed by the notes for the user."""
    rows = [_row(item.domain, item.settings_from) for item in planned]
    table = tabulate(
        rows,
        headers=list(_COLUMNS),
        tablefmt="simple",
        colalign=list(_COLUMNS.values()),
        disable_numparse=True,
    )
    changed = _changed_preprocessing(planned[0].domain.preprocessing)
    lines = [f"preprocessing: {'; '.join(changed)}"] if changed else []
    notes = [note for item in planned for note in item.notes]
    return "\n".join([table, *lines, *notes])


def _row(domain: Domain, settings_from: str) -> list[object]:
    return [
        domain.name,
        _triple(f"{size:.3g}" for size in domain.spacing_mm),
        _triple(domain.median_shape),
        _triple(domain.patch_size),
        ",".join(map(str, domain.pools)),
        domain.batch_size,
        ",".join(domain.mirror_axes) or "none",
        _training_cases(domain),
        len(domain.validation),
        len(domain.test),
        settings_from,
    ]


def _training_cases(domain: Domain) -> str:
    """Returns the number of training cases, and of folds if there are any."""
    count = len(domain.with_fold(None).train)
    return f"{count} in {len(domain.folds)} folds" if domain.folds else str(count)


def _changed_preprocessing(preprocessing: Preprocessing) -> list[str]:
    """Returns the settings of image preprocessing that differ from the paper's."""
    return [
        f"{name}={_flag_value(getattr(preprocessing, name))}"
        for name in (
            "margin_voxels",
            "clip_percentiles",
            "intensity_floor",
            "statistics_over",
            "size_rounding",
        )
        if getattr(preprocessing, name) != getattr(Preprocessing(), name)
    ]


def _flag_value(value: object) -> str:
    """Writes a setting as its flag is given."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _triple(values: Iterable[object]) -> str:
    return " × ".join(str(value) for value in values)
