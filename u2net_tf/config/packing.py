"""Settings of the command that packs a model into one file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.plan.limits import Depth


class PackConfig(Config):
    """Settings of `u2net_tf.pack`."""

    model_dir: str = Field(
        description="Folder that training, adapt or compose wrote, or that of several "
        "independent models."
    )
    output: str = Field(description="File to write; its name ends with .u2net.")
    domains: tuple[str, ...] = Field(
        (), description="Domains to pack, in this order; all if empty."
    )
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to pack: newest (newest intact), best or step-N.",
    )
    prune_to: Depth | None = Field(
        None,
        description="Depth L to which a unet_sharp is pruned: its head on X^{0,L} and "
        "the nodes that it needs. The whole network if not given.",
    )
    precision: Literal["float32", "float16"] = Field(
        "float32",
        description="Precision of the weights in the file. float16 halves it; the "
        "graphs compute in float32 all the same.",
    )
    licence: str | None = Field(
        None, min_length=1, description="Licence of the model, for its card."
    )
    intended_use: str | None = Field(
        None, min_length=1, description="What the model is for, for its card."
    )
    card_fields: str | None = Field(
        None,
        description="JSON file with fields of the model card: title, authors, contact, "
        "licence, intended_use, limitations, citation, and data, an object of a text "
        "per domain. What is not given, the card says is not given.",
    )
    evaluation: tuple[str, ...] = Field(
        (),
        description="Output folders of evaluate, whose summary.json has the Dice of "
        "this checkpoint, for the card.",
    )
    overwrite: bool = Field(False, description="Replace an existing file.")
