"""Draws the convolution units: what may stand in for a convolution of the trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.network_parts import (
    INK,
    OWN_NORM,
    draw_arrow,
    draw_plus,
    part_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.networks.conv_units import ConvUnit
    from u2net_tf.networks.layers import DomainLayer

BOX_WIDTH, BOX_HEIGHT = 0.86, 0.56
MODES = {"none": "shared, independent", "separable": "universal, as in the paper"}


def draw_units(axis: Axes) -> None:
    """Draws what may stand in for a convolution of the trunk, one unit for each."""
    from u2net_tf.networks.conv_units import UNITS

    axis.set_xlim(-0.3, 11.2)
    axis.set_ylim(-2.7, 0.45)
    for index, (name, unit_class) in enumerate(UNITS.items()):
        x, y = 5.9 * (index % 2), -2.0 * (index // 2)
        mode = f"--adapter={name}: {MODES.get(name, 'universal')}"
        axis.text(x, y - 0.48, mode, fontsize=9, va="center", color=INK)
        # More filters than inputs, so that a layer's channels tell what it reads.
        draw_unit(axis, unit_class(1, 2, 1), x + 0.3, y)


def draw_unit(axis: Axes, unit: ConvUnit, x: float, y: float) -> None:
    """Draws a unit from x on: its layers in a row, an adapter's beside the others."""
    beside = [
        layer for layer in unit.parts.values() if layer.name.startswith("adapter")
    ]
    *row, last = (layer for layer in unit.parts.values() if layer not in beside)
    step = BOX_WIDTH + 0.3
    draw_arrow(axis, (x - 0.3, y), (x, y))
    branch = x - 0.17
    if beside and reads_channels(beside[0]) != unit.in_channels:
        branch = x + BOX_WIDTH + 0.13
    for layer in row:
        _box(axis, layer, x, y)
        x += step
        inner = layer is not row[-1] or not beside
        draw_arrow(axis, (x - 0.3, y), (x, y), head=inner)
    if beside:
        # Beside what it runs parallel to, and the sum after both.
        left = branch + 0.17 if branch < x - step else branch + 0.2
        high = y + 0.72
        draw_arrow(
            axis, (branch, y), (left, high), "angle,angleA=90,angleB=0", head=False
        )
        for layer in beside:
            _box(axis, layer, left, high)
            left += step
            if layer is not beside[-1]:
                draw_arrow(axis, (left - 0.3, high), (left, high))
        total = max(x + 0.12, left - 0.05)
        draw_arrow(axis, (x, y), (total, y), head=False)
        end = (total, y + 0.14)
        draw_arrow(axis, (left - 0.3, high), end, "angle,angleA=0,angleB=90")
        draw_plus(axis, total, y)
        x = total + 0.3
        draw_arrow(axis, (total + 0.1, y), (x, y))
    _box(axis, last, x, y)
    draw_arrow(axis, (x + BOX_WIDTH, y), (x + BOX_WIDTH + 0.3, y))


def reads_channels(layer: DomainLayer) -> int:
    """Channels of what a layer of the first domain reads."""
    name = "in_channels_per_domain"
    return (getattr(layer, name, None) or layer.channels_per_domain)[0]


def _box(axis: Axes, layer: DomainLayer, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    part = part_of(layer)
    box = FancyBboxPatch(
        (x, y - BOX_HEIGHT / 2),
        BOX_WIDTH,
        BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=part.colour,
        edgecolor="none",
    )
    axis.add_patch(box)
    colour = INK if part.colour == OWN_NORM else "white"
    style: dict[str, Any] = {
        "fontsize": 8.5,
        "ha": "center",
        "va": "center",
        "color": colour,
    }
    axis.text(x + BOX_WIDTH / 2, y, part.label, linespacing=1.05, **style)
