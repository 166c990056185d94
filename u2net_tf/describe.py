"""Describes a model: its domains, network, training and checkpoints.

  python -m u2net_tf.describe MODEL
  python -m u2net_tf.describe MODEL --json

MODEL is a folder written by train, adapt or compose, or one of its checkpoints; for a
folder, the newest intact checkpoint is described. Missing information is shown as "not
recorded". MODEL may also be a model file (.u2net) or the name of a model that comes
with the package (hippocampus): then the file is verified, and its model card is
printed, or model.json with --json. Does not need TensorFlow.
"""

from u2net_tf import command
from u2net_tf.config.inference import DescribeConfig
from u2net_tf.wording import escape_controls


def main(config: DescribeConfig) -> None:
    """Prints the description."""
    from u2net_tf.models import description, description_table
    from u2net_tf.models.describe_model import describe_models
    from u2net_tf.models.model_file import read_model_file
    from u2net_tf.models.model_file_format import SUFFIX
    from u2net_tf.models.trained import find_trained

    model = str(find_trained(config.model))
    if model.endswith(SUFFIX):
        packed = read_model_file(model)
        text = packed.to_json() if config.json_ else packed.page
    else:
        models = describe_models(model)
        texts = map(description_table.to_text, models)
        text = description.to_json(models) if config.json_ else "\n\n".join(texts)
    # Models from others may contain characters that control a terminal.
    print(escape_controls(text.removesuffix("\n")))


def run() -> None:
    """Entry point of `u2net-describe`."""
    command.start(main, DescribeConfig)


if __name__ == "__main__":
    run()
