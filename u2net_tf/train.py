"""Trains one network for all domains of a plan, or one for each.

  python -m u2net_tf.train --flagfile=u2net_tf/flagfiles/universal.flags \
      --data_dir=DIR --model_dir=DIR

Flags in, one call: the run itself is `training.loop`. Interrupted, it goes on from the
last checkpoint when it is run again.
"""

import dataclasses
from collections.abc import Sequence

from absl import flags

from u2net_tf import command
from u2net_tf.input.augment import flags as augment_flags
from u2net_tf.networks import flags as network_flags
from u2net_tf.training import flags as training_flags

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder that convert wrote.")
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder for checkpoints, training.csv and TensorBoard."
)
_DOMAINS = flags.DEFINE_list(
    "domains", [], "Domains to train on, in this order; all of the plan if empty."
)
_INDEPENDENT = flags.DEFINE_bool(
    "independent",
    False,
    "Train a model of its own for each domain, one after the other, in "
    "MODEL_DIR/DOMAIN: the plan's patch, pools and batch unless flags say otherwise.",
)
_PATCH_SIZE = flags.DEFINE_list(
    "patch_size",
    [],
    "The network's patch z,y,x, voxels: patches are cut at each domain's own size and "
    "resized to it. If empty, they are taken as they are cut.",
)
_RESIZE_METHOD = flags.DEFINE_enum(
    "resize_method", "linear", ["linear", "cubic"], "How images of patches are resized."
)
flags.adopt_module_key_flags(network_flags)
flags.adopt_module_key_flags(training_flags)


def main(argv: Sequence[str]) -> None:
    """Trains, or goes on training."""
    del argv
    command.required(_DATA_DIR, _MODEL_DIR)
    command.import_tensorflow()
    settings = _settings()
    from u2net_tf.training import start

    independent = settings.pop("independent")
    run = start.train_independently if independent else start.train
    run(**settings)


def _settings() -> dict:
    settings = training_flags.settings(_DATA_DIR.value, _MODEL_DIR.value)
    settings["inputs"] = dataclasses.replace(
        settings["inputs"],
        patch_size=command.triple(_PATCH_SIZE, least=1),
        resize_method=_RESIZE_METHOD.value,
    )
    return {
        "independent": _INDEPENDENT.value,
        "domains": _DOMAINS.value,
        "network": network_flags.settings(),
        "pools": network_flags.pools(),
        "flags_text": command.flagfile_text(
            globals(),
            vars(network_flags),
            vars(training_flags),
            augment_flags.HOLDERS,
        ),
        **settings,
    }


def run() -> None:
    """Entry point of `u2net-train`."""
    command.start(main)


if __name__ == "__main__":
    run()
