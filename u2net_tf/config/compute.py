"""Settings of the computation: precision, memory, devices and compilation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


class ComputeConfig(Config):
    """Precision, gradient checkpointing, devices and compilation of a step."""

    precision: Precision = Field(
        "float32",
        description="Precision of the computation; variables are always float32. "
        "mixed_float16 uses dynamic loss scaling.",
    )
    gradient_checkpointing: Literal["none", "blocks"] = Field(
        "none",
        description="Activations that are recomputed in the backward pass instead of "
        "being kept: none, or those inside the stem and the encoder and decoder "
        "blocks (blocks). Checkpointing halves the memory for large patches and slows "
        "down steps; results are the same.",
    )
    distribution: Literal["auto", "none", "mirrored", "multi_worker_mirrored"] = Field(
        "auto",
        description="Distribution strategy: one device (none), a replica per GPU "
        "(mirrored), or per GPU of all machines in the environment variable TF_CONFIG "
        "(multi_worker_mirrored). auto is the last of these if TF_CONFIG lists several "
        "workers, otherwise mirrored if there are several GPUs.",
    )
    jit_compile: Literal["auto", "true", "false"] = Field(
        "auto",
        description="Compile the entire training step with XLA; on several devices, "
        "the loss and gradients of each. Compilation takes minutes; steps become "
        "faster on a GPU and much slower on a CPU. auto compiles on GPUs.",
    )
    triton_kernels: Literal["auto", "true", "false"] = Field(
        "auto",
        description="Compute depthwise convolutions with Triton kernels where XLA "
        "compiles training steps for a GPU (Ampere and later), which is faster. "
        "auto first tries a small convolution, and does without them if that "
        "fails; true is an error then.",
    )
