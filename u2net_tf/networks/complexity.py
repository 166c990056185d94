"""The old location of `u2net_tf.complexity`, which scripts may still use."""

from u2net_tf.complexity import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
