"""Settings of `u2net_tf.pack`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.network import PRUNE_TO
from u2net_tf.plan.limits import Depth


class PackConfig(Config):
    """Settings of `u2net_tf.pack`."""

    model_dir: str = Field(
        description="Folder of a model (written by train, adapt or compose) or of "
        "several independent models."
    )
    output: str = Field(description="Model file to write (.u2net).")
    domains: tuple[str, ...] = Field(
        (), description="Domains to pack, in this order; all if empty."
    )
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to pack: newest (the newest intact one), best or "
        "step-N.",
    )
    prune_to: Depth | None = PRUNE_TO
    precision: Literal["float32", "float16"] = Field(
        "float32",
        description="Precision of the weights in the file. float16 halves its size; "
        "computation is in float32 in both cases.",
    )
    licence: str | None = Field(
        None, min_length=1, description="Licence of the model, for the model card."
    )
    intended_use: str | None = Field(
        None, min_length=1, description="Intended use of the model, for the model card."
    )
    card_fields: str | None = Field(
        None,
        description="JSON file with fields of the model card: title, authors, contact, "
        "licence, intended_use, limitations, citation and data (an object with a text "
        "per domain). The card says which fields are not given.",
    )
    evaluation: tuple[str, ...] = Field(
        (),
        description="Output folders of evaluate, each with the Dice of this checkpoint "
        "in its summary.json, for the model card.",
    )
    overwrite: bool = Field(False, description="Replace an existing file.")
