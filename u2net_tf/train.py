"""Trains one network for all domains of a plan, or one for each.

  python -m u2net_tf.train --flagfile=u2net_tf/flagfiles/universal.flags \
      --data_dir=DIR --model_dir=DIR

Interrupted, it goes on from the last checkpoint when it is run again.
"""

from u2net_tf import command, machine
from u2net_tf.config.training import TrainConfig


def main(config: TrainConfig) -> None:
    """Trains, or goes on training."""
    machine.import_tensorflow()
    from u2net_tf.training import start

    (start.train_independently if config.independent else start.train)(config)


def run() -> None:
    """Entry point of `u2net-train`."""
    command.start(main, TrainConfig)


if __name__ == "__main__":
    run()
