"""The old place of `u2net_tf.show_augmentations`, which scripts may still name."""

from u2net_tf.show_augmentations import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
