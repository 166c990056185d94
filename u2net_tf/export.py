"""Exports a trained model to TensorFlow Serving, ONNX or OpenVINO.

  python -m u2net_tf.export --model_dir=DIR --output=NEW_DIR --format=saved_model
  python -m u2net_tf.export --model_dir=DIR --output=NEW_DIR --format=onnx

A SavedModel has a signature segment_DOMAIN for each domain, which maps patches to class
probabilities; ONNX and OpenVINO exports have a file for each domain with the same
function. All of them include the plan and the labels, and no case names. The formats
onnx and openvino need `pip install 'u2net-tf[export]'`.
"""

from u2net_tf import command, machine
from u2net_tf.config.exporting import ExportConfig
from u2net_tf.wording import quantity


def main(config: ExportConfig) -> None:
    """Writes the exported model."""
    machine.import_tensorflow()
    from absl import logging

    # TensorFlow logs each step of saving a model.
    logging.set_verbosity(logging.WARNING)
    from u2net_tf.exporting.export_model import export_model

    exported = export_model(config, progress=command.progress_bar)
    for name in exported.names:
        print(name)
    print(
        f"exported {quantity(len(exported.domains), 'domain')} of "
        f"{', '.join(exported.checkpoints)} to {config.output}"
    )


def run() -> None:
    """Entry point of `u2net-export`."""
    command.start(main, ExportConfig)


if __name__ == "__main__":
    run()
