"""Layers of the network's blocks, and how each is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.networks.layers import DomainLayer

OWN_CONV, OWN_NORM, SHARED_CONV = "#e0803c", "#f7cfae", "#3b75af"
INK, FAINT = "#333333", "#7d7d7d"
# Widths in drawing units; one unit is the height of a level.
WIDE, NARROW, NORM_WIDTH, UNIT_GAP = 0.26, 0.12, 0.09, 0.07


# (x, y)
Point: TypeAlias = tuple[float, float]
LineStyle: TypeAlias = Literal["-", "--"]


class Part(NamedTuple):
    """How a leaf layer is drawn.

    Attributes:
      label: operation of the layer, for the text in its box.
      colour: shared or domain-specific.
      width: width of its bar.
    """

    label: str
    colour: str
    width: float


def part_of(layer: DomainLayer) -> Part:
    """Returns how a leaf layer is drawn."""
    from u2net_tf.networks.layers import DepthwiseConv3D, DomainNorm, SharedConv3D

    if isinstance(layer, DomainNorm):
        activated = layer.negative_slope is not None
        return Part("norm,\nLeakyReLU" if activated else "norm", OWN_NORM, NORM_WIDTH)
    size = tuple(layer.kernel_size)
    kind = "depthwise" if isinstance(layer, DepthwiseConv3D) else "conv"
    colour = SHARED_CONV if isinstance(layer, SharedConv3D) else OWN_CONV
    width = NARROW if max(size) == 1 else WIDE
    return Part(f"{kind}\n{'×'.join(map(str, size))}", colour, width)


def parts_of(layer: DomainLayer) -> list[list[Part]]:
    """Returns the parts of a block, one list per convolution unit."""
    children = layer.parts.values()
    if not children:
        return [[part_of(layer)]]
    inner = [parts_of(child) for child in children]
    if any(child.parts for child in children):
        return list(itertools.chain(*inner))
    return [list(itertools.chain(*itertools.chain(*inner)))]


def block_width(layer: DomainLayer) -> float:
    """Returns the width of a block drawn as bars."""
    units = parts_of(layer)
    bars = sum(part.width for unit in units for part in unit)
    return bars + UNIT_GAP * (len(units) - 1)


def draw_block(
    axis: Axes,
    layer: DomainLayer,
    x: float,
    y: float,
    height: float,
    *,
    lower_half: bool = False,
) -> float:
    """Draws a block as bars that start at x; returns the x at which they end.

    Args:
      axis: axes to draw into.
      layer: the block.
      x: x of its left edge.
      y: y of its middle.
      height: height of the bars.
      lower_half: whether to draw only the part below the middle.
    """
    from matplotlib.patches import Rectangle

    for index, unit in enumerate(parts_of(layer)):
        x += UNIT_GAP if index else 0.0
        for part in unit:
            bar = Rectangle(
                (x, y - height / 2),
                part.width,
                height * (0.46 if lower_half else 1),
                facecolor=part.colour,
                edgecolor="white",
                linewidth=0.5,
            )
            axis.add_patch(bar)
            x += part.width
    return x


def draw_text(axis: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draws text; `style` overrides the default style of the drawing."""
    style = {"color": INK, "fontsize": 9, "va": "center", **style}
    axis.text(x, y, text, **style)


def draw_legend(axis: Axes, lines: Sequence[tuple[str, str, LineStyle]]) -> None:
    """Draws the legend of bars and lines at the lower right.

    Args:
      axis: axes to draw into.
      lines: text, colour and style of each line.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=OWN_CONV, label="domain-specific convolution"),
        Patch(color=OWN_NORM, label="domain-specific norm"),
        Patch(color=SHARED_CONV, label="shared convolution"),
        Line2D([], [], color="none", label="wide: 3×3×3, narrow: 1×1×1"),
        *(
            Line2D([], [], color=colour, linestyle=style, label=text)
            for text, colour, style in lines
        ),
    ]
    axis.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 0.0),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def level_sizes(pools: Sequence[int], num_levels: int) -> list[str]:
    """Returns the size of each level's feature maps as a fraction of the patch."""
    sizes = []
    for level in range(num_levels):
        halved = [2 ** min(level, times) for times in pools]
        halved = halved if len(set(halved)) > 1 else halved[:1]
        parts = ["1" if size == 1 else f"1/{size}" for size in halved]
        sizes.append(" × ".join(parts))
    return sizes


def draw_arrow(
    axis: Axes,
    start: Point,
    end: Point,
    bend: str = "arc3",
    *,
    colour: str = INK,
    linestyle: str | tuple[int, tuple[int, int]] = "-",
    head: bool = True,
) -> None:
    """Draws an arrow or a line between two points.

    Args:
      axis: axes to draw into.
      start: start (x, y).
      end: end (x, y).
      bend: connection style of matplotlib.
      colour: colour of the line.
      linestyle: style of the line.
      head: whether to draw an arrowhead.
    """
    style = {
        "arrowstyle": "-|>" if head else "-",
        "connectionstyle": bend,
        "color": colour,
        "linestyle": linestyle,
        "linewidth": 0.9,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 9,
    }
    axis.annotate("", xy=end, xytext=start, arrowprops=style)


def draw_plus(axis: Axes, x: float, y: float) -> None:
    """Draws a plus sign in a circle."""
    axis.plot(x, y, "o", markersize=11, color="white", markeredgecolor=INK, zorder=3)
    axis.text(x, y, "+", ha="center", va="center_baseline", fontsize=10, zorder=4)
