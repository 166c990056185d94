"""Settings of `u2net_tf.port_torch_weights`."""

from __future__ import annotations

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import U2NetConfig
from u2net_tf.plan.limits import PatchSize


class PortConfig(Config):
    """Settings of `u2net_tf.port_torch_weights`."""

    weights: str = Field(
        description="File with the published weights: .npz, .pth or .pth.tar."
    )
    plan: str = Field(
        description="Plan written by data_prep.plan that contains the domains."
    )
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the plan, in the order of the published network's "
        "domain indices; all, in the order of the plan, if empty.",
    )
    model_dir: str = Field(description="Folder for the new model.")
    patch_size: PatchSize | None = Field(
        None,
        description="Patch size of the network (z,y,x), voxels, if patches were "
        "resized to it in training; the patch size of each domain if empty.",
    )
    resize_method: ResizeMethod = Field(
        "linear", description="Interpolation by which patches were resized in training."
    )
    network: U2NetConfig = U2NetConfig()
