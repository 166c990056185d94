"""Chooses the axes along which training may mirror patches of a domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_prep.plan import left_and_right
from u2net_tf.plan.domains import Axis, Domain
from u2net_tf.plan.labels import Label
from u2net_tf.wording import first_few


def choose_axes(
    labels: Sequence[Label], chosen: tuple[Axis, ...] | None
) -> tuple[Axis, ...]:
    """Returns the axes along which training may mirror a patch.

    Args:
      labels: the classes.
      chosen: the axes that the user set, or None.
    """
    if chosen is not None:
        return chosen
    names = [label.name for label in labels]
    return () if left_and_right.find_side_pair(names) else ("x",)


def notes(domain: Domain, chosen: tuple[Axis, ...] | None) -> Iterable[str]:
    """Yields notes on left and right in names of classes that affect mirroring.

    Args:
      domain: the planned domain.
      chosen: see `choose_axes`.
    """
    names = [label.name for label in domain.labels]
    if pair := left_and_right.find_side_pair(names):
        one, other = pair
        guess = f"{one!r} and {other!r} look like a left-right pair"
        if chosen is None:
            yield f"no axis is mirrored, since {guess}; `mirror_axes` overrides this"
        elif "x" in domain.mirror_axes:
            yield f"x is mirrored as requested, although {guess}"
        return
    single = left_and_right.find_single_sides(names)
    if single and "x" in domain.mirror_axes:
        yield (
            "x is mirrored, although a side is part of the name of "
            f"{first_few(single)}; if the other side looks the same and is a different "
            "class, set `mirror_axes`=none"
        )
