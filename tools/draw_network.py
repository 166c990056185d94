"""Draws the network from the code: shared and domain-specific layers.

    python -m tools.draw_network --output=docs/images/network.png
    python -m tools.draw_network --architecture=unet_sharp --output=unet_sharp.png

Builds the network that the flags describe, walks its layers and draws them, with the
four convolution units below. Needs matplotlib.
"""

from __future__ import annotations

import pathlib
import typing
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field
from typing_extensions import Self

from tools.draw_unet_sharp import SharpDrawing
from tools.draw_units import draw_units
from tools.network_parts import (
    FAINT,
    UNIT_GAP,
    block_width,
    draw_arrow,
    draw_block,
    draw_legend,
    draw_plus,
    draw_text,
    level_sizes,
)
from u2net_tf import command, machine
from u2net_tf.config.base import Config
from u2net_tf.config.network import NetworkConfig, require_pools_within_depth
from u2net_tf.plan.limits import PoolsByAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from u2net_tf.networks.layers import DomainLayer
    from u2net_tf.networks.u2net import U2Net

# Height of the blocks, and its factor per level; one unit is the height of a level.
HEIGHT, SHRINK = 0.6, 0.9
# Where the arrow to the next level leaves a block, as a fraction of its width.
LEAVE = 0.2


class DrawnNetworkConfig(NetworkConfig):
    """Settings of the network to draw."""

    pools: PoolsByAxis | None = Field(
        None,
        description="Number of times that the network halves each axis (z,y,x); if "
        "empty, 5 for u2net and depth for unet_sharp.",
    )

    @pydantic.model_validator(mode="after")
    def _check_depth(self) -> Self:
        require_pools_within_depth(self)
        return self


class DrawNetworkConfig(Config):
    """Settings of `tools.draw_network`."""

    output: str = Field(description="PNG file to write.")
    network: DrawnNetworkConfig = DrawnNetworkConfig()


def main(config: DrawNetworkConfig) -> None:
    """Draws the network that the settings describe."""
    output, network = pathlib.Path(config.output), config.network
    settings = network.options()
    depth = settings["depth"]
    sharp_only = ("depth", "align_corners", "gates")
    for name in sharp_only if depth is None else ("second_up_conv",):
        del settings[name]
    pools = network.pools or ((5 if depth is None else depth),) * 3
    draw_network(output, pools=pools, **settings)
    print(f"{output}: drew the network with --adapter={settings['adapter']}")


def draw_network(output: pathlib.Path, **settings: Any) -> None:
    """Draws a network, with the convolution units below it, as a PNG file.

    Args:
      output: file to write.
      **settings: `architecture` and the arguments of the network.

    Raises:
      InputError: if `output` is not a PNG file.
      StoppedError: if matplotlib is missing.
    """
    from u2net_tf.visualization import figures

    figures.check_output(output)
    machine.import_tensorflow()
    from u2net_tf.networks.parameter_counts import network_without_values
    from u2net_tf.networks.unet_sharp import UNetSharp

    network = network_without_values((1, 1), (2, 2), **settings)
    is_sharp = isinstance(network, UNetSharp)
    height, network_ratio = (8.5, 3.7) if is_sharp else (7.0, 2.7)
    figure = figures.new_figure(11.0, height)
    above, below = figure.subplots(2, 1, height_ratios=(network_ratio, 1))
    for axis in (above, below):
        axis.set_axis_off()
    if isinstance(network, UNetSharp):
        SharpDrawing(above, network).draw()
    else:
        NetworkDrawing(above, typing.cast("U2Net", network)).draw()
    draw_units(below)
    figures.save_figure(figure, output)


class NetworkDrawing:
    """Drawing of a U²-Net: positions of its blocks and arrows between them.

    Args:
      axis: axes to draw into.
      network: a built `U2Net`.
    """

    def __init__(self, axis: Axes, network: U2Net):
        self.axis, self.network = axis, network
        self.num_levels = len(network.decoder)
        down = block_width(network.down_samples[0])
        step = LEAVE * block_width(network.encoder[0]) + down + 0.6
        self.encoder_x = [1.45 + step * level for level in range(self.num_levels + 1)]
        decoder = network.decoder[0]
        step = block_width(decoder) - block_width(decoder.up_unit) / 2 + 0.2
        first = self.encoder_x[-1] + block_width(network.encoder[-1]) + 0.1
        self.decoder_x = [
            first + step * (self.num_levels - 1 - level)
            for level in range(self.num_levels)
        ]
        self.head_x = self.decoder_x[0] + block_width(decoder) + 0.5
        self.sum_x = self.head_x + block_width(network.head) + 0.75

    def draw(self) -> None:
        """Draws everything."""
        self._draw_encoder()
        self._draw_decoder()
        self._draw_head()
        self._draw_deep_supervision()
        self._draw_legend()
        self.axis.set_xlim(-0.5, self.sum_x + 1.3)
        self.axis.set_ylim(-self.num_levels - 0.75, 0.75)

    def _draw_encoder(self) -> None:
        network, x = self.network, self.encoder_x
        self._draw_text(-0.45, 0, "scan", ha="left")
        draw_arrow(self.axis, (0.15, 0), (0.45, 0))
        end = self._draw_block(network.stem, 0.45, 0)
        self._draw_title(0.45, end, 0, "stem")
        draw_arrow(self.axis, (end, 0), (x[0], 0))
        for level, block in enumerate(network.encoder):
            end = self._draw_block(block, x[level], level)
            self._draw_residual(x[level], end, level)
            self._draw_title(x[level], end, level, block.channels, lift=0.08)
            if level == self.num_levels:
                break
            down = network.down_samples[level]
            down_x = x[level + 1] - block_width(down) - 0.28
            leave = x[level] + LEAVE * block_width(block)
            draw_arrow(
                self.axis,
                (leave, -level - _height(level) / 2),
                (down_x, -level - 1),
                "angle,angleA=90,angleB=0,rad=5",
            )
            down_end = self._draw_block(down, down_x, level + 1)
            draw_arrow(self.axis, (down_end, -level - 1), (x[level + 1], -level - 1))

    def _draw_decoder(self) -> None:
        network, x = self.network, self.decoder_x
        before = self.encoder_x[-1] + block_width(network.encoder[-1])
        for level in reversed(range(self.num_levels)):
            block = network.decoder[level]
            # The first unit is half as high, because it supplies half of the input of
            # the second; the skip supplies the other half.
            up_end = self._draw_block(block.up_unit, x[level], level, lower_half=True)
            second = up_end + UNIT_GAP
            end = self._draw_block(block.unit_1, second, level)
            end = self._draw_block(block.unit_2, end + UNIT_GAP, level)
            self._draw_title(second, end, level, block.filters)
            draw_arrow(
                self.axis,
                (before, -level - 1),
                ((x[level] + up_end) / 2, -level - _height(level) / 2),
                "angle,angleA=0,angleB=90,rad=5",
            )
            encoder = network.encoder[level]
            skip_y = -level + _height(level) / 4
            draw_arrow(
                self.axis,
                (self.encoder_x[level] + block_width(encoder), skip_y),
                (second, skip_y),
                colour=FAINT,
                linestyle=(0, (5, 3)),
            )
            before = end

    def _draw_head(self) -> None:
        head = self.network.head
        start = self.decoder_x[0] + block_width(self.network.decoder[0])
        draw_arrow(self.axis, (start, 0), (self.head_x, 0))
        end = self._draw_block(head, self.head_x, 0)
        self._draw_title(self.head_x, end, 0, "head")
        draw_arrow(self.axis, (end, 0), (self.sum_x + 0.5, 0))
        self._draw_text(self.sum_x + 0.6, 0, "logits", ha="left")

    def _draw_deep_supervision(self) -> None:
        network = self.network
        levels = network.supervised_levels
        for level, block in zip(levels, network.deep_supervision, strict=True):
            start = self.decoder_x[level] + block_width(network.decoder[level])
            draw_arrow(self.axis, (start, -level), (self.head_x, -level))
            end = self._draw_block(block, self.head_x, level)
            first = level == levels[0]
            draw_arrow(self.axis, (end, -level), (self.sum_x, -level), head=False)
            above = -levels[levels.index(level) + 1] if level != levels[-1] else 0
            draw_arrow(self.axis, (self.sum_x, -level), (self.sum_x, above - 0.13))
            if not first:
                draw_plus(self.axis, self.sum_x, -level)
        if levels:
            draw_plus(self.axis, self.sum_x, 0)
            low = -levels[0] - _height(levels[0]) / 2 - 0.17
            self._draw_text(self.head_x - 0.1, low, "deep supervision", ha="left")

    def _draw_legend(self) -> None:
        sizes = level_sizes(self.network.pools, self.num_levels + 1)
        for level, size in enumerate(sizes):
            if level:
                text = f"size {size}" if level == 1 else size
                self._draw_text(-0.45, -level, text, ha="left", color=FAINT)
        draw_legend(
            self.axis,
            [("skip, concatenated", FAINT, "--"), ("residual, added", FAINT, "-")],
        )

    def _draw_block(
        self, layer: DomainLayer, x: float, level: int, *, lower_half: bool = False
    ) -> float:
        """Draws a block as bars that start at x; returns the x at which they end."""
        height = _height(level)
        return draw_block(self.axis, layer, x, -level, height, lower_half=lower_half)

    def _draw_residual(self, start: float, end: float, level: int) -> None:
        """Draws the residual connection around an encoder block."""
        high = -level + _height(level) / 2 + 0.07
        start, end = start - 0.07, end + 0.07
        xs, ys = (start, start, end, end), (-level, high, high, -level)
        self.axis.plot(xs, ys, color=FAINT, linewidth=0.9)

    def _draw_title(
        self, start: float, end: float, level: int, text: object, lift: float = 0.0
    ) -> None:
        high = -level + _height(level) / 2 + 0.12 + lift
        self._draw_text((start + end) / 2, high, str(text), ha="center")

    def _draw_text(self, x: float, y: float, text: str, **style: Any) -> None:
        draw_text(self.axis, x, y, text, **style)


def _height(level: int) -> float:
    return HEIGHT * SHRINK**level


def run() -> None:
    """Runs the command."""
    command.start(main, DrawNetworkConfig)


if __name__ == "__main__":
    run()
