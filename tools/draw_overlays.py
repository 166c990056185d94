"""The old place of `u2net_tf.draw_overlays`, which scripts may still name."""

from u2net_tf.draw_overlays import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
