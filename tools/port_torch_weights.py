"""The old place of `u2net_tf.port_torch_weights`, which scripts may still name."""

from u2net_tf.port_torch_weights import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
