"""Draws UNet#: its nodes and their inputs, its heads, and its pruned sub-networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.network_parts import (
    FAINT,
    INK,
    block_width,
    draw_arrow,
    draw_block,
    draw_legend,
    draw_text,
    level_sizes,
)
from u2net_tf.plan.sharp_grid import Place, node_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.networks.unet_sharp import UNetSharp

UP_SAMPLED = "#4b8f5a"
# Height of the blocks; one unit is the height of a level.
HEIGHT = 0.34
# Offsets of lines above and below the middle of a node, and from its right edge.
ABOVE, BELOW, LEAVE, RISE = 0.4, -0.32, 0.2, 0.42
HEAD_Y, HEAD_HEIGHT = 0.86, 0.3
# Shades of the networks pruned to 1, 2, …, from the inside out.
SHADES = ("#d3dae2", "#e0e5eb", "#ebeff3", "#f6f8fa")


class SharpDrawing:
    """Drawing of a UNet#: positions of its nodes and connections between them.

    Inputs from the same level arrive along a line above, from all nodes to the left;
    inputs from the levels below arrive along a line from all nodes of the diagonal.

    Args:
      axis: axes to draw into.
      network: a built `UNetSharp`.
    """

    def __init__(self, axis: Axes, network: UNetSharp):
        self.axis, self.network, self.depth = axis, network, network.depth
        # All nodes have the same width except X^{0,0}, whose first unit is the stem.
        self.width = block_width(network.nodes[1, 0])
        self.step = self.width + 1.3
        self.left = 1.9

    def draw(self) -> None:
        """Draws everything."""
        self._draw_shading()
        for place in node_places(self.depth):
            self._draw_node(place)
        for level in range(self.depth):
            self._draw_dense_skips(level)
        for diagonal in range(1, self.depth + 1):
            self._draw_full_scale_skips(diagonal)
        for head in self.network.heads:
            self._draw_head(head)
        for level, column in self.network.gates:
            if column == 0:
                self._draw_deep_gate(level)
        self._draw_legend()
        right = self._end(self.depth) + LEAVE + 1.6
        self.axis.set_xlim(-0.1, right)
        self.axis.set_ylim(-self.depth - 0.6, HEAD_Y + 0.6)

    def _start(self, column: int) -> float:
        return self.left + self.step * column

    def _end(self, column: int) -> float:
        return self._start(column) + self.width

    def _draw_shading(self) -> None:
        """Shades the nodes of a network pruned to each depth, the deepest first."""
        from matplotlib.patches import Rectangle

        for depth in range(self.depth, 0, -1):
            for level in range(depth + 1):
                left = self._start(0) - 0.55
                top = HEAD_Y + 0.5 if level == 0 else 0.5 - level
                right = self._end(depth - level) + RISE + 0.18
                size = (right - left, top - (-0.5 - level))
                colour = SHADES[depth - 1]
                self.axis.add_patch(
                    Rectangle((left, -0.5 - level), *size, color=colour, linewidth=0)
                )

    def _draw_node(self, place: Place) -> None:
        level, column = place
        x, node = self._start(column), self.network.nodes[place]
        if place == (0, 0):
            self._draw_text(x - 0.85, 0, "scan", ha="right")
            draw_arrow(self.axis, (x - 0.8, 0), (x, 0))
            end = draw_block(self.axis, self.network.stem, x, 0, HEIGHT)
            start = self._end(0) - block_width(node)
            draw_arrow(self.axis, (end, 0), (start, 0))
            draw_block(self.axis, node, start, 0, HEIGHT)
        else:
            draw_block(self.axis, node, x, -level, HEIGHT)
        if column == 0 and level:
            middle = x + self.width / 2
            above = -level + 1 - HEIGHT / 2
            draw_arrow(self.axis, (middle, above), (middle, -level + HEIGHT / 2))
        name = f"$X^{{{level},{column}}}$"
        self._draw_text(x + self.width, -level + 0.25, name, ha="right", fontsize=10)

    def _draw_dense_skips(self, level: int) -> None:
        """Connects each node of a level to all nodes to its right."""
        last = self.depth - level
        high = -level + ABOVE
        for column in range(last):
            out = self._end(column) + LEAVE
            self._draw_line((self._end(column), -level), (out, -level))
            self._draw_line((out, -level), (out, high))
            tap = self._start(column + 1) + 0.2 * self.width
            end = self._end(column + 1) + LEAVE if column + 1 < last else tap
            self._draw_line((out, high), (end, high))
            draw_arrow(self.axis, (tap, high), (tap, -level + HEIGHT / 2))

    def _draw_full_scale_skips(self, diagonal: int) -> None:
        """Connects each node of a diagonal to all nodes above it on the next one."""
        style: dict[str, Any] = {"colour": UP_SAMPLED}
        for column in range(diagonal):
            level = diagonal - column
            rise = self._end(column) + RISE
            self._draw_line((self._end(column), -level), (rise, -level), **style)
            low, high = -level + BELOW, -level + 1 + BELOW
            self._draw_line((rise, low if column else -level), (rise, high), **style)
            tap = self._start(column + 1) + 0.2 * self.width
            above = (tap, -level + 1 - HEIGHT / 2)
            end = self._end(column + 1) + RISE if level > 1 else tap
            self._draw_line((rise, high), (end, high), **style)
            draw_arrow(self.axis, (tap, high), above, **style)

    def _draw_head(self, place: Place) -> None:
        level, column = place
        head, end = self.network.heads[place], self._end(column)
        width = block_width(head)
        if level:
            x = end + RISE + 0.35
            self._draw_line((end, -level), (end + RISE, -level))
            draw_arrow(self.axis, (end + RISE, -level), (x, -level))
            draw_block(self.axis, head, x, -level, HEIGHT)
            self._draw_text(x + width + 0.12, -level, "head", ha="left")
            return
        out = end + LEAVE
        self._draw_line((end, 0), (out, 0))
        draw_arrow(self.axis, (out, 0), (out, HEAD_Y - HEAD_HEIGHT / 2))
        draw_block(self.axis, head, out - width / 2, HEAD_Y, HEAD_HEIGHT)
        is_last = column == self.depth
        right, text = out + width / 2, "head"
        if place in self.network.gates:
            gate = self.network.gates[place]
            right = draw_block(self.axis, gate, right + 0.05, HEAD_Y, HEAD_HEIGHT)
            text = "head, gate"
        text += " → logits" if is_last else ""
        self._draw_text(right + 0.1, HEAD_Y, text, ha="left")
        self._draw_text(out - 0.16, HEAD_Y, f"L = {column}", ha="right", color=FAINT)

    def _draw_deep_gate(self, level: int) -> None:
        """Draws a gate below the right end of X^{level,0}."""
        gate = self.network.gates[level, 0]
        x = self._end(0) - block_width(gate)
        middle, low = x + block_width(gate) / 2, -level - HEIGHT / 2
        draw_arrow(self.axis, (middle, low), (middle, low - 0.12))
        draw_block(self.axis, gate, x, low - 0.2, 0.16)
        self._draw_text(x - 0.05, low - 0.2, "gate", ha="right", fontsize=8)

    def _draw_legend(self) -> None:
        sizes = level_sizes(self.network.pools, self.depth + 1)
        for level, size in enumerate(sizes):
            channels = self.network.nodes[level, 0].filters
            text = f"{channels} channels" if level == 0 else str(channels)
            y = -level - (0.26 if level == 0 else 0.0)
            self._draw_text(0.0, y, text, ha="left", color=FAINT)
            if level:
                text = f"size {size}" if level == 1 else size
                self._draw_text(0.0, y - 0.2, text, ha="left", color=FAINT)
        corners = ", corners aligned" if self.network.align_corners else ""
        draw_legend(
            self.axis,
            [
                ("max pooling; all nodes to the left, concatenated", INK, "-"),
                (f"all nodes of the diagonal, up-sampled{corners}", UP_SAMPLED, "-"),
                ("shading up to head L: network pruned to L", "none", "-"),
            ],
        )

    def _draw_line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        *,
        colour: str = INK,
    ) -> None:
        xs, ys = zip(start, end, strict=True)
        self.axis.plot(xs, ys, color=colour, linewidth=0.9, solid_capstyle="round")

    def _draw_text(self, x: float, y: float, text: str, **style: Any) -> None:
        draw_text(self.axis, x, y, text, **style)
