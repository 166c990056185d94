"""Former location of `u2net_tf.port_torch_weights`, kept for existing scripts."""

from u2net_tf.port_torch_weights import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
