"""What a network is computed in and on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


class ComputeConfig(Config):
    """What a step is computed in and on."""

    precision: Precision = Field(
        "float32",
        description="What the network computes in; its variables are float32 in each. "
        "The loss is scaled for float16.",
    )
    gradient_checkpointing: Literal["none", "blocks"] = Field(
        "none",
        description="What the backward pass computes again rather than keep: with "
        "blocks, what lies inside the stem and the blocks of encoder and decoder. Half "
        "the memory for large patches, longer steps, the same results.",
    )
    distribution: Literal["auto", "none", "mirrored"] = Field(
        "auto",
        description="Devices to train on: auto mirrors over all GPUs where there are "
        "several.",
    )
    jit_compile: Literal["auto", "true", "false"] = Field(
        "auto",
        description="Compile a whole step by XLA as one module, on one device: minutes "
        "at the start, shorter steps on a GPU, far longer ones on a CPU. auto: on a "
        "GPU.",
    )
