"""Settings of the command that ports weights of the published network."""

from __future__ import annotations

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import U2NetConfig
from u2net_tf.plan.limits import PatchSize


class PortConfig(Config):
    """Settings of `u2net_tf.port_torch_weights`."""

    weights: str = Field(description="File of weights: .npz, .pth or .pth.tar.")
    plan: str = Field(description="Plan of the domains.")
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the plan, in the order of the published network's "
        "domain indices; in the plan's order if empty.",
    )
    model_dir: str = Field(description="Folder for the new model.")
    patch_size: PatchSize | None = Field(
        None,
        description="Patch z,y,x, voxels, that the network was trained with, if "
        "patches were resized to it; each domain's own if empty.",
    )
    resize_method: ResizeMethod = Field(
        "linear", description="How patches were resized."
    )
    network: U2NetConfig = U2NetConfig()
