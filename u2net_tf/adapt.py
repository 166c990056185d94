r"""Adds a new domain to a trained model; the old domains stay bit-identical.

  python -m u2net_tf.adapt --from=MODEL_DIR --domain=NAME --data_dir=DIR \
      --model_dir=NEW_MODEL_DIR

The shared variables are frozen; only those of the new domain are trained. The model in
the new folder has the old and the new domains; the old folder is not modified. SIGTERM,
SIGUSR1 and Ctrl-C stop training after the current step and save a checkpoint. When
rerun, training resumes from the last checkpoint.
"""

from u2net_tf import command, machine
from u2net_tf.config.training import AdaptConfig


def main(config: AdaptConfig) -> None:
    """Adds the domain, or resumes its training."""
    machine.import_tensorflow()
    from u2net_tf.training import stop_requests
    from u2net_tf.training.adaptation import adapt
    from u2net_tf.training.runs import summary

    progress = command.progress_every(config.log.log_every_seconds)
    stop = stop_requests.from_command(config.run.max_minutes)
    run, checksums = adapt(config, progress=progress, stop=stop)
    print(command.name_flags(summary(run)))
    if checksums:
        print(checksums)


def run() -> None:
    """Entry point of `u2net-adapt`."""
    command.start(main, AdaptConfig)


if __name__ == "__main__":
    run()
