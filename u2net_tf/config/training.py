"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.config.compute import ComputeConfig
from u2net_tf.config.data import DataConfig
from u2net_tf.config.log import LogConfig
from u2net_tf.config.network import NetworkConfig
from u2net_tf.errors import InputError

Weight = Annotated[float, Field(ge=0)]


class LossConfig(Config):
    """The loss: focal and Lovász-Softmax."""

    detach_focal_factor: bool = Field(
        False,
        description="Take the focal factor for a constant in the gradient, as the "
        "published code does.",
    )
    top_head_weights: tuple[Weight, ...] = Field(
        (),
        description="Weights in the loss of unet_sharp's heads on X^{0,1}, X^{0,2}, …, "
        "the last being the one that predicts; 1 each if empty. The loss is the "
        "weighted mean of those of all heads.",
    )
    deep_head_weights: tuple[Weight, ...] = Field(
        (),
        description="The same of the heads on X^{1,depth-1}, …, X^{depth,0}; 1 each if "
        "empty.",
    )
    gate_loss_weight: Weight | None = Field(
        None,
        description="Weight of the gates' loss, which is added to that of the heads: "
        "the mean of the binary cross-entropies of all gates; 1 if not given.",
    )


class OptimizerConfig(Config):
    """Adam, as the published code has it."""

    learning_rate: float = Field(3e-4, gt=0, description="Of Adam, at first.")
    weight_decay: float = Field(
        1e-5, ge=0, description="L2 factor, added to the gradient."
    )


class ScheduleConfig(Config):
    """When the learning rate falls and when training ends.

    A moving average of the epochs' training losses is looked at every
    `patience_epochs`. If it has not fallen by `plateau_min_delta` since the last look,
    the learning rate is multiplied by `plateau_factor`; training ends when it is below
    `min_learning_rate`. The average is exponential, as in the paper, or the mean of
    the last `loss_window_epochs`, as in the published code, which looks at it after
    each epoch once there are that many.

    Reference: 3D U²-Net, section 3, "Implementation details".
    """

    patience_epochs: int = Field(
        30, ge=1, description="Epochs between two looks at the loss's moving average."
    )
    plateau_min_delta: float = Field(
        5e-4,
        description="The learning rate is cut if the average fell by less than this.",
    )
    plateau_factor: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="By which the learning rate is multiplied on a plateau.",
    )
    min_learning_rate: float = Field(
        1e-8,
        gt=0,
        description="Training ends when the learning rate is below this.",
    )
    loss_ema_decay: float = Field(
        0.93,
        ge=0,
        lt=1,
        description="Weight of the old moving average when an epoch's loss is added. "
        "The paper does not give it.",
    )
    loss_window_epochs: int = Field(
        0,
        ge=0,
        description="Take the mean of so many epochs for the moving average, as the "
        "published code does; 0 for the paper's exponential one.",
    )


class RunConfig(Config):
    """How long to train and what to keep."""

    model_dir: str = Field(
        description="Folder for checkpoints, training.csv and TensorBoard."
    )
    steps_per_epoch: int = Field(
        250, ge=1, description="Batches per epoch, all domains together."
    )
    max_epochs: int = Field(
        0,
        ge=0,
        description="End after so many epochs at the latest; 0 for no limit.",
    )
    max_minutes: float = Field(
        0.0,
        ge=0,
        description="Save the run after so many minutes and end with exit status 75; 0 "
        "for no limit. The step that is running then is finished first.",
    )
    validate_every_epochs: int = Field(
        10, ge=0, description="Epochs between validations; 0 for none."
    )
    eval_cases: int = Field(2, ge=1, description="Cases per domain in a validation.")
    keep: int = Field(
        3,
        ge=1,
        description="Checkpoints to keep, the last ones. The best one is kept besides: "
        "by the mean Dice on validation cases or, without them, by the loss's moving "
        "average.",
    )


class RunningConfig(Config):
    """Settings that all training runs share."""

    data: DataConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    compute: ComputeConfig = ComputeConfig()
    run: RunConfig
    log: LogConfig = LogConfig()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        first, last = self.optimizer.learning_rate, self.schedule.min_learning_rate
        if not last <= first:
            raise InputError(
                "`learning_rate`",
                expected=f"at least `min_learning_rate`, which is {last}",
                received=first,
            )
        return self


class TrainConfig(RunningConfig):
    """Settings of `u2net_tf.train`."""

    network: NetworkConfig = NetworkConfig()
    domains: tuple[str, ...] = Field(
        (),
        description="Domains to train on, in this order; all of the plan if empty.",
    )
    independent: bool = Field(
        False,
        description="Train a model of its own for each domain, one after the other, in "
        "MODEL_DIR/DOMAIN: the plan's patch, pools and batch unless these are set.",
    )


class AdaptConfig(RunningConfig):
    """Settings of `u2net_tf.adapt`."""

    # The parent's.
    not_flags: ClassVar[frozenset[str]] = frozenset({"patch_size", "resize_method"})

    from_: str = Field(description="Folder of the model to start from.")
    domain: str = Field(description="The new domain, of the data's plan.")
    init: str = Field(
        "mean",
        description="Where the new depthwise filters (or adapters) and norms of the "
        "trunk start: random, mean (of the old domains') or the name of an old domain.",
    )
