"""Merges models that were adapted from one parent, or removes domains from a model.

  python -m u2net_tf.compose --models=DIR,DIR --model_dir=NEW_MODEL_DIR
  python -m u2net_tf.compose --models=DIR --remove=NAME --model_dir=NEW_MODEL_DIR

If two labs each add an organ to the same model, the merged model has both organs and
the old ones, all bit-identical to before. Nothing is trained.
"""

from u2net_tf import command, machine
from u2net_tf.config.inference import ComposeConfig
from u2net_tf.wording import quantity


def main(config: ComposeConfig) -> None:
    """Writes the new model."""
    machine.import_tensorflow()
    from u2net_tf.models.composition import compose_models

    composed = compose_models(config)
    print(composed.checksums)
    print(f"{quantity(len(composed.domains), 'domain')} in {composed.checkpoint}")


def run() -> None:
    """Entry point of `u2net-compose`."""
    command.start(main, ComposeConfig)


if __name__ == "__main__":
    run()
