"""Exchanges domains between models as adapter files.

  python -m u2net_tf.adapter export --model_dir=DIR --domain=NAME --output=FILE
  python -m u2net_tf.adapter add --model_dir=DIR --input=FILE,FILE --output_dir=NEW
  python -m u2net_tf.adapter remove --model_dir=DIR --domains=NAME --output_dir=NEW
  python -m u2net_tf.adapter list --model_dir=DIR --input=FILE,FILE

An adapter file contains the variables of a single domain (0.1 M parameters with
separable adapters) and fits every model with the same trunk. In float32, the resulting
model is bit-identical to that of `python -m u2net_tf.compose`. The flags of a command
are listed by `python -m u2net_tf.adapter COMMAND --help`.
"""

from u2net_tf import command, machine
from u2net_tf.config.adapter_files import (
    AdapterAddConfig,
    AdapterExportConfig,
    AdapterListConfig,
    AdapterRemoveConfig,
)
from u2net_tf.errors import InputError
from u2net_tf.wording import quantity


def export(config: AdapterExportConfig) -> None:
    """Writes a domain of a model as an adapter file.

      python -m u2net_tf.adapter export --model_dir=DIR --domain=NAME --output=FILE

    The file contains no case names.
    """
    machine.import_tensorflow()
    from u2net_tf.models.adapter_models import export_adapter

    file, checkpoint = export_adapter(config)
    print(
        f"{file.path}: {file.name} of {checkpoint}, {file.num_parameters:,} parameters "
        f"in {file.precision}, {file.path.stat().st_size / 1e6:.2f} MB, licence "
        f"{file.metadata.licence or 'not stated'}; for models with the trunk "
        f"{file.metadata.trunk_sha256}"
    )


def add(config: AdapterAddConfig) -> None:
    """Adds the domains of adapter files to a model with the same trunk.

      python -m u2net_tf.adapter add --model_dir=DIR --input=FILE --output_dir=NEW

    The existing domains of the model stay bit-identical.
    """
    machine.import_tensorflow()
    from u2net_tf.models.adapter_models import add_adapters

    composed = add_adapters(config)
    print(composed.checksums)
    print(f"{quantity(len(composed.domains), 'domain')} in {composed.checkpoint}")


def remove(config: AdapterRemoveConfig) -> None:
    """Removes domains from a model.

      python -m u2net_tf.adapter remove --model_dir=DIR --domains=NAME --output_dir=NEW

    The remaining domains stay bit-identical.
    """
    machine.import_tensorflow()
    from u2net_tf.models.adapter_models import remove_adapters

    composed = remove_adapters(config)
    print(composed.checksums)
    print(f"{quantity(len(composed.domains), 'domain')} in {composed.checkpoint}")


def list_(config: AdapterListConfig) -> None:
    """Lists the domains of a model, or of adapter files.

      python -m u2net_tf.adapter list --model_dir=DIR
      python -m u2net_tf.adapter list --input=FILE,FILE

    With both flags, also shows which of the files fit the model.
    """
    from u2net_tf.models import adapter_table
    from u2net_tf.models.adapter_files import AdapterFile

    if not config.model_dir and not config.input:
        raise InputError(
            "`model_dir`", expected="a value here or for `input`", received="neither"
        )
    files = [AdapterFile(path) for path in config.input]
    if not config.model_dir:
        # Listing files does not need TensorFlow.
        print(adapter_table.table_of_files(files))
        return
    machine.import_tensorflow()
    from u2net_tf.models import adapter_models, checksums
    from u2net_tf.models.variables import own_by_name

    spec, network, _ = adapter_models.load_model(config.model_dir)
    trunk = checksums.of_trunk(network)
    domains = dict(enumerate(spec.plan.names))
    print(
        adapter_table.table_of_model(
            spec,
            trunk,
            {n: checksums.of_domain_variables(network, i) for i, n in domains.items()},
            {
                name: sum(int(v.numpy().size) for v in own_by_name(network, i).values())
                for i, name in domains.items()
            },
        )
    )
    if files:
        print(f"\n{adapter_table.table_of_files(files, spec=spec, trunk=trunk)}")


def run() -> None:
    """Entry point of `u2net-adapter`."""
    command.start_one_of(
        {
            "export": (export, AdapterExportConfig),
            "add": (add, AdapterAddConfig),
            "list": (list_, AdapterListConfig),
            "remove": (remove, AdapterRemoveConfig),
        }
    )


if __name__ == "__main__":
    run()
