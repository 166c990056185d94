"""Merges models that were adapted from one parent, or removes domains from a model.

  python -m u2net_tf.compose --models=DIR,DIR --model_dir=NEW_MODEL_DIR
  python -m u2net_tf.compose --models=DIR --remove=NAME --model_dir=NEW_MODEL_DIR

Two labs each add an organ to the same model: merged, one model has both organs and the
old ones, each bit-identical to before. Nothing is trained.
"""

from u2net_tf import command, machine
from u2net_tf.config.inference import ComposeConfig
from u2net_tf.wording import quantity


def main(config: ComposeConfig) -> None:
    """Writes the new model."""
    if len(set(config.models)) < len(config.models):
        raise command.InputError(
            "`models`", expected="each once", received=",".join(config.models)
        )
    machine.import_tensorflow()
    from u2net_tf.models import checksums, composition
    from u2net_tf.models.loading import load_network, require_no_model, save_model

    require_no_model(config.model_dir)
    models = {folder: load_network(folder)[:2] for folder in config.models}
    spec, network = composition.compose(models, config.remove)
    before: dict[str, str] = {}
    for source in models.values():
        before = checksums.of_domains(*source) | before
    kept = {name: before[name] for name in spec.plan.names}
    # Checked before anything is written, and again in what was written.
    checksums.compare(kept, checksums.of_domains(spec, network))
    path = save_model(config.model_dir, spec, network)
    after = checksums.of_domains(*load_network(config.model_dir)[:2])
    print(checksums.compare(kept, after))
    print(f"{quantity(len(kept), 'domain')} in {path}")


def run() -> None:
    """Entry point of `u2net-compose`."""
    command.start(main, ComposeConfig)


if __name__ == "__main__":
    run()
