"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.config.compute import ComputeConfig
from u2net_tf.config.data import DataConfig
from u2net_tf.config.log import LogConfig
from u2net_tf.config.network import NetworkConfig
from u2net_tf.errors import InputError

_LOWEST_WEIGHT, _HIGHEST_WEIGHT = 1e-6, 1e6


def _check_weight(weight: float) -> float:
    if weight and not _LOWEST_WEIGHT <= weight <= _HIGHEST_WEIGHT:
        raise ValueError(
            f"0 or a number from {_LOWEST_WEIGHT:g} to {_HIGHEST_WEIGHT:g}"
        )
    return weight


# Weights of heads are divided by their sum. In float32, the quotient of a weight beyond
# these limits could be 0, so that nothing is trained, and a loss could become infinite.
Weight = Annotated[float, pydantic.AfterValidator(_check_weight)]


class LossConfig(Config):
    """The loss: focal and Lovász-Softmax."""

    detach_focal_factor: bool = Field(
        False,
        description="Treat the focal factor as a constant in the gradient, as the "
        "published code does.",
    )
    region_loss_weight: Weight = Field(
        0.0,
        description="Weight of the region loss: the loss of each region of a domain's "
        "plan against all other voxels, averaged over its regions. It is added to the "
        "loss of the classes. With 0, regions are only scored.",
    )
    top_head_weights: tuple[Weight, ...] = Field(
        (),
        description="Loss weights of the heads of a UNet# on X^{0,1}, X^{0,2}, …, of "
        "which the last one predicts; 1 each if empty. The loss is the weighted mean "
        "over all heads.",
    )
    deep_head_weights: tuple[Weight, ...] = Field(
        (),
        description="Loss weights of the heads of a UNet# on X^{1,depth-1}, …, "
        "X^{depth,0}; 1 each if empty.",
    )
    gate_loss_weight: Weight | None = Field(
        None,
        description="Weight of the gate loss (the mean binary cross-entropy of all "
        "gates), which is added to the loss of the heads; 0.1 if not given.",
    )


class OptimizerConfig(Config):
    """Adam, as in the published code."""

    learning_rate: float = Field(
        3e-4, gt=0, description="Initial learning rate of Adam."
    )
    weight_decay: float = Field(
        1e-5,
        ge=0,
        description="L2 penalty factor, applied through the gradient as in Adam, not "
        "decoupled as in AdamW.",
    )
    weight_ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of exponential moving averages of the weights, per step of "
        "a domain. They take the place of the weights in validation and in the saved "
        "model. 0 for no averages.",
    )


class ScheduleConfig(Config):
    """When the learning rate falls and when training ends.

    By default, a moving average of the epochs' training losses is checked every
    `patience_epochs`. If it has not fallen by `plateau_min_delta` since the last check,
    the learning rate is multiplied by `plateau_factor`; training ends when it is below
    `min_learning_rate`. The average is exponential, as in the paper, or the mean of
    the last `loss_window_epochs`, as in the published code, which checks it after each
    epoch once there are that many.

    Alternatively, the learning rate of an epoch is (1 - epochs done / `max_epochs`) **
    `polynomial_power` times the initial one, as in nnU-Net.

    Reference: 3D U²-Net, section 3, "Implementation details"; Isensee et al., nnU-Net,
    Nature Methods 2021.
    """

    learning_rate_schedule: Literal["plateau", "polynomial"] = Field(
        "plateau",
        description="Reduce the learning rate when the loss reaches a plateau, as in "
        "the paper, or after every epoch, so that it is 0 after max_epochs, as in "
        "nnU-Net (polynomial).",
    )
    polynomial_power: float = Field(
        0.9,
        gt=0,
        description="Exponent of the polynomial: the learning rate of an epoch is (1 - "
        "epochs done / max_epochs) ** polynomial_power times the initial one.",
    )
    patience_epochs: int = Field(
        30, ge=1, description="Epochs between checks of the moving average of the loss."
    )
    plateau_min_delta: float = Field(
        5e-4,
        description="Minimum decrease of the moving average between two checks; less "
        "counts as a plateau.",
    )
    plateau_factor: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Factor by which the learning rate is multiplied on a plateau.",
    )
    min_learning_rate: float = Field(
        1e-8,
        gt=0,
        description="Learning rate below which training ends.",
    )
    loss_ema_decay: float = Field(
        0.93,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the loss: the weight "
        "of the previous average in the next one. The paper does not specify it. Not "
        "used with loss_window_epochs.",
    )
    loss_window_epochs: int = Field(
        0,
        ge=0,
        description="Number of epochs over which the loss is averaged, as in the "
        "published code; 0 for the exponential moving average of the paper.",
    )


class RunConfig(Config):
    """Length of a run, validation and checkpoints."""

    model_dir: str = Field(
        description="Folder for checkpoints, training.csv and TensorBoard logs."
    )
    steps_per_epoch: int = Field(
        250, ge=1, description="Number of batches per epoch, all domains together."
    )
    max_epochs: int = Field(
        0,
        ge=0,
        description="Maximum number of epochs; 0 for no limit.",
    )
    max_minutes: float = Field(
        0.0,
        ge=0,
        description="Minutes after which the run finishes its current step, saves a "
        "checkpoint and ends with exit status 75; 0 for no limit.",
    )
    validate_every_epochs: int = Field(
        10, ge=0, description="Epochs between validations; 0 for no validation."
    )
    eval_cases: int = Field(
        2, ge=1, description="Maximum number of cases per domain to validate on."
    )
    keep: int = Field(
        3,
        ge=1,
        description="Number of newest checkpoints to keep. The best one (by mean "
        "validation Dice or, without validation cases, by the moving average of the "
        "loss) is always kept as well.",
    )


class RunningConfig(Config):
    """Settings shared by `u2net_tf.train` and `u2net_tf.adapt`."""

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
        is_polynomial = self.schedule.learning_rate_schedule == "polynomial"
        if is_polynomial and not self.run.max_epochs:
            raise InputError(
                "`max_epochs`",
                expected="a number of epochs, at the end of which the polynomial of "
                "`learning_rate_schedule` is 0",
                received="0, no limit",
            )
        return self


class TrainConfig(RunningConfig):
    """Settings of `u2net_tf.train`."""

    network: NetworkConfig = NetworkConfig()
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the plan to train on, in this order; all if empty.",
    )
    init_from: str | None = Field(
        None,
        min_length=1,
        description="Folder of a model with the initial weights, which may have other "
        "domains; random if not given. With independent or a single domain, it may "
        "also be a folder of independent models.",
    )
    independent: bool = Field(
        False,
        description="Train a separate model for each domain, one after the other, in "
        "MODEL_DIR/DOMAIN, with the plan's patch size, pools and batch size unless "
        "these are set.",
    )


class AdaptConfig(RunningConfig):
    """Settings of `u2net_tf.adapt`."""

    # These are taken from the model to start from.
    not_flags: ClassVar[frozenset[str]] = frozenset({"patch_size", "resize_method"})

    from_: str = Field(description="Folder of the model to start from.")
    domain: str = Field(description="New domain; it must be in the plan of data_dir.")
    init: str = Field(
        "mean",
        description="Initial values of the new domain's depthwise filters (or "
        "adapters) and norms in the trunk: random, mean (over the old domains) or the "
        "name of an old domain to copy them from.",
    )
