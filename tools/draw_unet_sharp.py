"""Draws UNet#: its nodes, what they read, its heads, and what pruning leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.network_parts import (
    FAINT,
    INK,
    block_width,
    draw_arrow,
    draw_block,
    draw_key,
    draw_text,
    sizes_of_levels,
)
from u2net_tf.plan.sharp_grid import Place, node_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.networks.unet_sharp import UNetSharp

UP_SAMPLED = "#4b8f5a"
# In the units of the drawing, in which a level is 1 high.
HEIGHT = 0.34
# How far lines run above and below the middle of a node, and from its right edge.
ABOVE, BELOW, LEAVE, RISE = 0.4, -0.32, 0.2, 0.42
HEAD_Y, HEAD_HEIGHT = 0.86, 0.3
# Of what is left when a network is pruned to 1, 2, …, from the inside out.
SHADES = ("#d3dae2", "#e0e5eb", "#ebeff3", "#f6f8fa")


class SharpDrawing:
    """Where the nodes of a network stand, and how they are joined.

    What a node reads of its own level comes along a line above, from all nodes to the
    left; what it reads of the levels below comes along a line from all nodes of the
    diagonal.

    Args:
      axis: to draw into.
      network: a built `UNetSharp`.
    """

    def __init__(self, axis: Axes, network: UNetSharp):
        self.axis, self.network, self.depth = axis, network, network.depth
        # All nodes are equally wide, but X^{0,0}, whose first unit is the stem.
        self.width = block_width(network.nodes[1, 0])
        self.step = self.width + 1.3
        self.left = 1.9

    def draw(self) -> None:
        """Draws everything."""
        self._shade()
        for place in node_places(self.depth):
            self._node(place)
        for level in range(self.depth):
            self._dense(level)
        for diagonal in range(1, self.depth + 1):
            self._full_scale(diagonal)
        for head in self.network.heads:
            self._head(head)
        for level, column in self.network.gates:
            if column == 0:
                self._deep_gate(level)
        self._explain()
        right = self._end(self.depth) + LEAVE + 1.6
        self.axis.set_xlim(-0.1, right)
        self.axis.set_ylim(-self.depth - 0.6, HEAD_Y + 0.6)

    def _start(self, column: int) -> float:
        return self.left + self.step * column

    def _end(self, column: int) -> float:
        return self._start(column) + self.width

    def _shade(self) -> None:
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

    def _node(self, place: Place) -> None:
        level, column = place
        x, node = self._start(column), self.network.nodes[place]
        if place == (0, 0):
            self._text(x - 0.85, 0, "scan", ha="right")
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
        self._text(x + self.width, -level + 0.25, name, ha="right", fontsize=10)

    def _dense(self, level: int) -> None:
        """From each node of a level to all to the right of it."""
        last = self.depth - level
        high = -level + ABOVE
        for column in range(last):
            out = self._end(column) + LEAVE
            self._line((self._end(column), -level), (out, -level))
            self._line((out, -level), (out, high))
            tap = self._start(column + 1) + 0.2 * self.width
            end = self._end(column + 1) + LEAVE if column + 1 < last else tap
            self._line((out, high), (end, high))
            draw_arrow(self.axis, (tap, high), (tap, -level + HEIGHT / 2))

    def _full_scale(self, diagonal: int) -> None:
        """From each node of a diagonal to all above it."""
        style: dict[str, Any] = {"colour": UP_SAMPLED}
        for column in range(diagonal):
            level = diagonal - column
            rise = self._end(column) + RISE
            self._line((self._end(column), -level), (rise, -level), **style)
            low, high = -level + BELOW, -level + 1 + BELOW
            self._line((rise, low if column else -level), (rise, high), **style)
            tap = self._start(column + 1) + 0.2 * self.width
            above = (tap, -level + 1 - HEIGHT / 2)
            end = self._end(column + 1) + RISE if level > 1 else tap
            self._line((rise, high), (end, high), **style)
            draw_arrow(self.axis, (tap, high), above, **style)

    def _head(self, place: Place) -> None:
        level, column = place
        head, end = self.network.heads[place], self._end(column)
        width = block_width(head)
        if level:
            x = end + RISE + 0.35
            self._line((end, -level), (end + RISE, -level))
            draw_arrow(self.axis, (end + RISE, -level), (x, -level))
            draw_block(self.axis, head, x, -level, HEIGHT)
            self._text(x + width + 0.12, -level, "head", ha="left")
            return
        out = end + LEAVE
        self._line((end, 0), (out, 0))
        draw_arrow(self.axis, (out, 0), (out, HEAD_Y - HEAD_HEIGHT / 2))
        draw_block(self.axis, head, out - width / 2, HEAD_Y, HEAD_HEIGHT)
        is_last = column == self.depth
        right, text = out + width / 2, "head"
        if place in self.network.gates:
            gate = self.network.gates[place]
            right = draw_block(self.axis, gate, right + 0.05, HEAD_Y, HEAD_HEIGHT)
            text = "head, gate"
        text += " → logits" if is_last else ""
        self._text(right + 0.1, HEAD_Y, text, ha="left")
        self._text(out - 0.16, HEAD_Y, f"L = {column}", ha="right", color=FAINT)

    def _deep_gate(self, level: int) -> None:
        """Below the right end of X^{level,0}."""
        gate = self.network.gates[level, 0]
        x = self._end(0) - block_width(gate)
        middle, low = x + block_width(gate) / 2, -level - HEIGHT / 2
        draw_arrow(self.axis, (middle, low), (middle, low - 0.12))
        draw_block(self.axis, gate, x, low - 0.2, 0.16)
        self._text(x - 0.05, low - 0.2, "gate", ha="right", fontsize=8)

    def _explain(self) -> None:
        sizes = sizes_of_levels(self.network.pools, self.depth + 1)
        for level, size in enumerate(sizes):
            channels = self.network.nodes[level, 0].filters
            text = f"{channels} channels" if level == 0 else str(channels)
            y = -level - (0.26 if level == 0 else 0.0)
            self._text(0.0, y, text, ha="left", color=FAINT)
            if level:
                text = f"size {size}" if level == 1 else size
                self._text(0.0, y - 0.2, text, ha="left", color=FAINT)
        corners = ", corners aligned" if self.network.align_corners else ""
        draw_key(
            self.axis,
            [
                ("max pooling; all nodes to the left, concatenated", INK, "-"),
                (f"all nodes of the diagonal, up-sampled{corners}", UP_SAMPLED, "-"),
                ("shaded with head L: what pruning to L leaves", "none", "-"),
            ],
        )

    def _line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        *,
        colour: str = INK,
    ) -> None:
        xs, ys = zip(start, end, strict=True)
        self.axis.plot(xs, ys, color=colour, linewidth=0.9, solid_capstyle="round")

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        draw_text(self.axis, x, y, text, **style)
