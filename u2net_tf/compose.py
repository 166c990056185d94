"""Makes one model of several that were adapted from one parent, or takes domains out.

  python -m u2net_tf.compose --models=DIR,DIR --model_dir=NEW_MODEL_DIR
  python -m u2net_tf.compose --models=DIR --remove=NAME --model_dir=NEW_MODEL_DIR

Two labs each add an organ to the same model: merged, one model serves both organs and
the old ones, each bit for bit as it was. Nothing is trained.
"""

from collections.abc import Sequence

from absl import flags

from u2net_tf import command

_MODELS = flags.DEFINE_list(
    "models", None, "Folders of models whose shared variables are the same."
)
_REMOVE = flags.DEFINE_list("remove", [], "Domains to leave out.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder for the new model.")


def main(argv: Sequence[str]) -> None:
    """Writes the new model."""
    del argv
    command.required(_MODELS, _MODEL_DIR)
    if len(set(_MODELS.value)) < len(_MODELS.value):
        raise command.InputError(
            f"--models: expected each once, found {','.join(_MODELS.value)}"
        )
    command.import_tensorflow()
    from u2net_tf.models import checksums, composition
    from u2net_tf.models.checkpoints import check_free, load_network, save_model

    check_free(_MODEL_DIR.value)
    models = {folder: load_network(folder)[:2] for folder in _MODELS.value}
    spec, network = composition.compose(models, _REMOVE.value)
    before: dict[str, str] = {}
    for source in models.values():
        before = checksums.of_domains(*source) | before
    kept = {name: before[name] for name in spec.plan.names}
    # Before anything is written, and once more what was written.
    checksums.compare(kept, checksums.of_domains(spec, network))
    path = save_model(_MODEL_DIR.value, spec, network)
    after = checksums.of_domains(*load_network(_MODEL_DIR.value)[:2])
    print(checksums.compare(kept, after))
    print(f"{len(kept)} domains in {path}")


def run() -> None:
    """Entry point of `u2net-compose`."""
    command.start(main)


if __name__ == "__main__":
    run()
