r"""Packs a trained model into a single file for distribution: *.u2net.

  python -m u2net_tf.pack --model_dir=DIR --output=organs.u2net
  python -m u2net_tf.pack --model_dir=DIR --output=organs.u2net --evaluation=DIR/test \
      --licence=CC-BY-4.0 --intended_use="Research only" --precision=float16

The file is a zip archive with an ONNX graph for each domain, the weights that they
share, the plan, names and colours of the labels, a model card and the SHA-256 of each
member. It contains no case names. The card marks missing entries as not given. Needs
`pip install 'u2net-tf[export]'`.
"""

from u2net_tf import command, machine
from u2net_tf.config.packing import PackConfig
from u2net_tf.wording import quantity


def main(config: PackConfig) -> None:
    """Writes the file."""
    machine.import_tensorflow()
    from u2net_tf.exporting.pack_model import pack_model

    packed = pack_model(config, progress=command.progress_bar)
    for domain in packed.domains:
        print(domain.name)
    size = packed.path.stat().st_size
    print(
        f"packed {quantity(len(packed.domains), 'domain')} into {packed.path}: "
        f"{size:,} bytes, SHA-256 of model.json {packed.sha256}"
    )


def run() -> None:
    """Entry point of `u2net-pack`."""
    command.start(main, PackConfig)


if __name__ == "__main__":
    run()
