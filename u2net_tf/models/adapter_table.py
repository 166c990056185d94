"""Tables of the domains of a model and of adapter files, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from u2net_tf.errors import InputError
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.adapter_fit import require_fit
from u2net_tf.models.spec import ModelSpec
from u2net_tf.wording import escape_controls

# Number of characters of a checksum that tables show.
_CHECKSUM_CHARACTERS = 16


def table_of_model(
    spec: ModelSpec,
    trunk: str,
    checksums: Mapping[str, str],
    num_parameters: Mapping[str, int],
) -> str:
    """Returns a table of a model's domains, comparable with `table_of_files`.

    Args:
      spec: specification of the model.
      trunk: checksum of the trunk.
      checksums: domain -> checksum of the variables that only it uses.
      num_parameters: domain -> number of values in these variables.
    """
    rows = [
        (
            domain.name,
            ", ".join(domain.modalities),
            domain.num_classes,
            f"{num_parameters[domain.name]:,}",
            checksums[domain.name][:_CHECKSUM_CHARACTERS],
        )
        for domain in spec.plan.domains
    ]
    headers = ("domain", "modalities", "classes", "parameters", "SHA-256")
    return f"trunk {trunk}\n{_table(rows, headers)}"


def table_of_files(
    adapters: Sequence[AdapterFile],
    *,
    spec: ModelSpec | None = None,
    trunk: str = "",
) -> str:
    """Returns a table with a row per adapter file, followed by their cards.

    Args:
      adapters: the files, which are read completely.
      spec: specification of a model, to add a column with which files fit it; None to
        leave out the column.
      trunk: checksum of the trunk of that model.
    """
    rows, cards = [], []
    for file in adapters:
        adapter = file.read()
        domain = file.spec.plan.domains[0]
        row: list[object] = [
            file.path,
            domain.name,
            ", ".join(domain.modalities),
            domain.num_classes,
            f"{file.num_parameters:,}",
            file.precision,
            file.metadata.variables_sha256[:_CHECKSUM_CHARACTERS],
            file.metadata.trunk_sha256[:_CHECKSUM_CHARACTERS],
            adapter.licence or "not stated",
        ]
        if spec is not None:
            row.append("yes" if _fits(file, spec, trunk) else "no")
        rows.append(row)
        if adapter.card:
            cards.append(f"\n{file.path}:\n{adapter.card.rstrip()}")
    headers = ["file", "domain", "modalities", "classes", "parameters", "precision"]
    headers += ["SHA-256", "trunk", "licence", *["fits"] * (spec is not None)]
    return "\n".join([_table(rows, headers), *cards])


def _fits(file: AdapterFile, spec: ModelSpec, trunk: str) -> bool:
    try:
        require_fit(file, spec, trunk, model="the model")
    except InputError:
        return False
    return True


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    # Modalities in files from others may contain characters that control a terminal.
    return escape_controls(table)
