"""Former location of `u2net_tf.show_augmentations`, kept for existing scripts."""

from u2net_tf.show_augmentations import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
