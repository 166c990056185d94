"""The old place of `u2net_tf.plot_training`, which scripts may still name."""

from u2net_tf.plot_training import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
