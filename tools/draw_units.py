"""Draws the convolution units, any of which can serve as a trunk convolution."""

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
    """Draws one convolution unit of each kind."""
    from u2net_tf.networks.conv_units import UNITS

    axis.set_xlim(-0.3, 11.2)
    axis.set_ylim(-2.7, 0.45)
    for index, (name, unit_class) in enumerate(UNITS.items()):
        x, y = 5.9 * (index % 2), -2.0 * (index // 2)
        mode = f"--adapter={name}: {MODES.get(name, 'universal')}"
        axis.text(x, y - 0.48, mode, fontsize=9, va="center", color=INK)
        # More filters than inputs, so that a layer's input channels reveal its input.
        draw_unit(axis, unit_class(1, 2, 1), x + 0.3, y)


def draw_unit(axis: Axes, unit: ConvUnit, x: float, y: float) -> None:
    """Draws a unit that starts at x: its layers in a row, parallel adapters above."""
    adapter = [
        layer for layer in unit.parts.values() if layer.name.startswith("adapter")
    ]
    *row, last = (layer for layer in unit.parts.values() if layer not in adapter)
    step = BOX_WIDTH + 0.3
    draw_arrow(axis, (x - 0.3, y), (x, y))
    branch = x - 0.17
    if adapter and input_channels(adapter[0]) != unit.in_channels:
        branch = x + BOX_WIDTH + 0.13
    for layer in row:
        _draw_box(axis, layer, x, y)
        x += step
        inner = layer is not row[-1] or not adapter
        draw_arrow(axis, (x - 0.3, y), (x, y), head=inner)
    if adapter:
        # Above the layers that it runs parallel to, with the sum after both.
        left = branch + 0.17 if branch < x - step else branch + 0.2
        high = y + 0.72
        draw_arrow(
            axis, (branch, y), (left, high), "angle,angleA=90,angleB=0", head=False
        )
        for layer in adapter:
            _draw_box(axis, layer, left, high)
            left += step
            if layer is not adapter[-1]:
                draw_arrow(axis, (left - 0.3, high), (left, high))
        total = max(x + 0.12, left - 0.05)
        draw_arrow(axis, (x, y), (total, y), head=False)
        end = (total, y + 0.14)
        draw_arrow(axis, (left - 0.3, high), end, "angle,angleA=0,angleB=90")
        draw_plus(axis, total, y)
        x = total + 0.3
        draw_arrow(axis, (total + 0.1, y), (x, y))
    _draw_box(axis, last, x, y)
    draw_arrow(axis, (x + BOX_WIDTH, y), (x + BOX_WIDTH + 0.3, y))


def input_channels(layer: DomainLayer) -> int:
    """Returns the number of input channels of a layer for the first domain."""
    name = "in_channels_per_domain"
    return (getattr(layer, name, None) or layer.channels_per_domain)[0]


def _draw_box(axis: Axes, layer: DomainLayer, x: float, y: float) -> None:
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
