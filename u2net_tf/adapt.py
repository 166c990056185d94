"""Adds a new domain to a trained model; the old domains stay bit for bit as they were.

  python -m u2net_tf.adapt --from=MODEL_DIR --domain=NAME --data_dir=DIR \
      --model_dir=NEW_MODEL_DIR

What domains share is frozen; only what is the new domain's own is trained. The new
folder's model serves old and new domains; the old folder is only read. Interrupted, it
goes on from the last checkpoint when it is run again.
"""

from collections.abc import Sequence

from absl import flags

from u2net_tf import command
from u2net_tf.input.augment import flags as augment_flags
from u2net_tf.training import flags as training_flags

_FROM = flags.DEFINE_string("from", None, "Folder of the model to start from.")
_DOMAIN = flags.DEFINE_string("domain", None, "The new domain, of the data's plan.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder that convert wrote, with the new domain's shards."
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder for the new model, training.csv and TensorBoard."
)
_INIT = flags.DEFINE_string(
    "init",
    "mean",
    "Where the new depthwise filters (or adapters) and norms of the trunk start: "
    "random, mean (of the old domains') or the name of an old domain.",
)
flags.adopt_module_key_flags(training_flags)


def main(argv: Sequence[str]) -> None:
    """Adds the domain, or goes on training it."""
    del argv
    command.required(_FROM, _DOMAIN, _DATA_DIR, _MODEL_DIR)
    command.import_tensorflow()
    settings = _settings()
    from u2net_tf.training.adaptation import adapt

    adapt(**settings)


def _settings() -> dict:
    return {
        "parent_dir": _FROM.value,
        "domain": _DOMAIN.value,
        "init": _INIT.value,
        "flags_text": command.flagfile_text(
            globals(), vars(training_flags), augment_flags.HOLDERS
        ),
        **training_flags.settings(_DATA_DIR.value, _MODEL_DIR.value),
    }


def run() -> None:
    """Entry point of `u2net-adapt`."""
    command.start(main)


if __name__ == "__main__":
    run()
