"""Flags of a training run, for the commands that train."""

from __future__ import annotations

from typing import Any

from absl import flags

from u2net_tf import command
from u2net_tf.input.augment import flags as augment_flags

_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Patches per batch; the plan's per domain if 0.", lower_bound=0
)
_CERTAIN_SHARE = flags.DEFINE_float(
    "certain_share",
    1 / 3,
    "Share of a batch, rounded up, that is certain to be drawn around foreground.",
)
_SMALLEST_SHARE = flags.DEFINE_float(
    "smallest_share", 0.3, "Share of the others drawn around the case's smallest class."
)
_FOREGROUND_SHARE = flags.DEFINE_float(
    "foreground_share", 0.3, "Share of the others drawn around any foreground class."
)
_MIRROR_PROBABILITY = flags.DEFINE_float(
    "mirror_probability", 0.3, "Of mirroring along each axis that the plan allows."
)
flags.adopt_module_key_flags(augment_flags)
_INPUT_MEMORY_MB = flags.DEFINE_integer(
    "input_memory_mb",
    2048,
    "Memory for cases that are shuffled, patches that are cut and mixed and batches "
    "that are ready, of all domains together, MB. On top come, for each domain, a "
    "batch and the record that it reads from.",
    lower_bound=1,
)
_PATCHES_PER_VOLUME = flags.DEFINE_integer(
    "patches_per_volume",
    0,
    "Patches cut of a case that was read, mixed with those of other cases; if 0 one, "
    "and more of cases that take over 64 MB.",
    lower_bound=0,
)
_NUM_PARALLEL_CALLS = flags.DEFINE_integer(
    "num_parallel_calls",
    0,
    "Patches of a domain cut in parallel, whatever memory they need; as many as "
    "--input_memory_mb has room for if 0.",
    lower_bound=0,
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 3e-4, "Of Adam, at first.")
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", 1e-5, "L2 factor, added to the gradient.", lower_bound=0
)
_DETACH_FOCAL_FACTOR = flags.DEFINE_bool(
    "detach_focal_factor",
    False,
    "Take the focal factor for a constant in the gradient, as the published code does.",
)
_PATIENCE_EPOCHS = flags.DEFINE_integer(
    "patience_epochs", 30, "Epochs between two looks at the loss's moving average."
)
_MIN_FALL = flags.DEFINE_float(
    "min_fall", 5e-4, "The learning rate is cut if the average fell by less than this."
)
_LEARNING_RATE_FACTOR = flags.DEFINE_float(
    "learning_rate_factor", 5.0, "By which the learning rate is divided."
)
_MIN_LEARNING_RATE = flags.DEFINE_float(
    "min_learning_rate", 1e-8, "Training ends when the learning rate is below this."
)
_LOSS_DECAY = flags.DEFINE_float(
    "loss_decay", 0.93, "Of the loss's moving average, per epoch."
)
_LOSS_WINDOW_EPOCHS = flags.DEFINE_integer(
    "loss_window_epochs",
    0,
    "Take the mean of so many epochs for the moving average, as the published code "
    "does; 0 for the paper's exponential one.",
    lower_bound=0,
)
_STEPS_PER_EPOCH = flags.DEFINE_integer(
    "steps_per_epoch", 250, "Batches per epoch, all domains together.", lower_bound=1
)
_MAX_EPOCHS = flags.DEFINE_integer(
    "max_epochs",
    0,
    "End after so many epochs at the latest; 0 for no limit.",
    lower_bound=0,
)
_EVAL_EVERY = flags.DEFINE_integer(
    "eval_every", 10, "Epochs between validations; 0 for none.", lower_bound=0
)
_EVAL_CASES = flags.DEFINE_integer(
    "eval_cases", 2, "Cases per domain in a validation.", lower_bound=1
)
_KEEP = flags.DEFINE_integer(
    "keep",
    3,
    "Checkpoints to keep, the last ones. The best one is kept besides: by the mean "
    "Dice on validation cases or, without them, by the loss's moving average.",
    lower_bound=1,
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Of weights, patches and mirroring.",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "What the network computes in; its variables are float32 in each. The loss is "
    "scaled for float16.",
)
_RECOMPUTE = flags.DEFINE_enum(
    "recompute",
    "none",
    ["none", "blocks"],
    "What the backward pass computes again rather than keep: with blocks, what lies "
    "inside the stem and the blocks of encoder and decoder. Half the memory for large "
    "patches, longer steps, the same results.",
)
_DISTRIBUTION = flags.DEFINE_enum(
    "distribution",
    "auto",
    ["auto", "none", "mirrored"],
    "Devices to train on: auto mirrors over all GPUs where there are several.",
)


def settings(data_dir: str, model_dir: str) -> dict[str, Any]:
    """`inputs`, `optimizer`, `rule`, `settings`, `computing`, `distribution`.

    Args:
      data_dir: folder that convert wrote.
      model_dir: folder of the run.

    Raises:
      InputError: if a value is out of range.
    """
    from u2net_tf.input.patches import Sampling
    from u2net_tf.input.pipeline import InputSettings
    from u2net_tf.training.loop import RunSettings
    from u2net_tf.training.schedule import PlateauRule

    try:
        sampling = Sampling(
            certain_share=_CERTAIN_SHARE.value,
            smallest_share=_SMALLEST_SHARE.value,
            foreground_share=_FOREGROUND_SHARE.value,
            mirror_probability=_MIRROR_PROBABILITY.value,
        )
        rule = PlateauRule(
            learning_rate=_LEARNING_RATE.value,
            patience_epochs=_PATIENCE_EPOCHS.value,
            min_fall=_MIN_FALL.value,
            factor=_LEARNING_RATE_FACTOR.value,
            min_learning_rate=_MIN_LEARNING_RATE.value,
            decay=_LOSS_DECAY.value,
            window_epochs=_LOSS_WINDOW_EPOCHS.value,
        )
    except ValueError as error:
        raise command.InputError(f"flags: {error}") from None
    return {
        "inputs": InputSettings(
            data_dir=data_dir,
            batch_size=_BATCH_SIZE.value or None,
            sampling=sampling,
            augmentation=augment_flags.augmentation(),
            input_memory_mb=_INPUT_MEMORY_MB.value,
            patches_per_volume=_PATCHES_PER_VOLUME.value or None,
            seed=_SEED.value,
            num_parallel_calls=_NUM_PARALLEL_CALLS.value or None,
        ),
        "optimizer": {
            "weight_decay": _WEIGHT_DECAY.value,
            "detach_focal_factor": _DETACH_FOCAL_FACTOR.value,
        },
        "rule": rule,
        "settings": RunSettings(
            model_dir=model_dir,
            steps_per_epoch=_STEPS_PER_EPOCH.value,
            max_epochs=_MAX_EPOCHS.value,
            eval_every=_EVAL_EVERY.value,
            eval_cases=_EVAL_CASES.value,
            keep=_KEEP.value,
        ),
        "computing": {"dtype": _PRECISION.value, "recompute": _RECOMPUTE.value},
        "distribution": _DISTRIBUTION.value,
    }
