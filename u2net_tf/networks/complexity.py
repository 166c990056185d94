"""Former location of `u2net_tf.complexity`, kept for existing scripts."""

from u2net_tf.complexity import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
