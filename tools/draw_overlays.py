"""Former location of `u2net_tf.draw_overlays`, kept for existing scripts."""

from u2net_tf.draw_overlays import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
