"""Exports domains of saved models as adapter files, and adds and removes domains."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from u2net_tf import files, locks, temporary_names
from u2net_tf.config.adapter_files import (
    AdapterAddConfig,
    AdapterExportConfig,
    AdapterRemoveConfig,
)
from u2net_tf.errors import InputError
from u2net_tf.models import adapter_files, checkpoint_paths, checksums
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.adapters import of_domain, with_adapters
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.composed_models import (
    ComposedModel,
    check_composed,
    is_same_model,
    require_place_for_model,
    save_composed,
)
from u2net_tf.models.composition import compose
from u2net_tf.models.loading import NEWEST, load_network, load_spec_and_state
from u2net_tf.models.run_state import RunState
from u2net_tf.models.seen_cases import seen_domains
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.wording import first_few

Model = tuple[ModelSpec, DomainModel]


class ExportedAdapter(NamedTuple):
    """Result of `export_adapter`.

    Attributes:
      file: the adapter file.
      checkpoint: path of the checkpoint that it was made from.
    """

    file: AdapterFile
    checkpoint: str


def export_adapter(config: AdapterExportConfig) -> ExportedAdapter:
    """Writes a domain of a model as an adapter file.

    Raises:
      InputError: if there is no such model or domain, a variable exceeds the range of
        the precision, or a different file would be overwritten.
      OSError: if a file cannot be read or written.
    """
    output = pathlib.Path(config.output)
    _check_output(output)
    licence = config.licence or ""
    adapter_files.check_licence(licence, "`licence`")
    card = ""
    if config.card:
        card = files.require_text(pathlib.Path(config.card))
        adapter_files.check_card(card, config.card)
    spec, network, checkpoint = load_model(config.model_dir, config.checkpoint)
    if config.domain not in spec.plan.names:
        raise InputError(
            "`domain`",
            expected=f"one of {', '.join(spec.plan.names)}",
            received=config.domain,
        )
    adapter = of_domain(spec, network, config.domain, licence=licence, card=card)
    content = adapter_files.to_bytes(adapter, config.precision)
    if not (output.exists() and output.read_bytes() == content):
        if output.exists() and not config.overwrite:
            raise InputError(
                output,
                expected="a new file",
                received="an existing file with different content",
                hint="Use `overwrite` to replace it",
            )
        with files.atomic_write(output) as partial:
            partial.write_bytes(content)
    temporary_names.remove_leftovers(output.parent)
    return ExportedAdapter(AdapterFile(output), checkpoint)


def _check_output(output: pathlib.Path) -> None:
    if output.suffix != adapter_files.SUFFIX:
        raise InputError(
            "`output`",
            expected=f"a name that ends with {adapter_files.SUFFIX}",
            received=output.name,
        )
    if os.path.lexists(output) and not output.is_file():
        raise InputError(
            output, expected="a new file", received=files.what_is_at(output)
        )


def add_adapters(config: AdapterAddConfig) -> ComposedModel:
    """Writes a model with the domains of adapter files in addition to its own.

    Raises:
      InputError: if a file is damaged or does not fit the model, or the folder cannot
        be written to.
      StoppedError: if a domain has changed.
      OSError: if a file cannot be read or the model cannot be written.
    """
    adapters = [AdapterFile(path) for path in config.input]
    return _change(
        config.model_dir,
        config.output_dir,
        lambda spec, network: with_adapters(
            spec, network, adapters, model=config.model_dir
        ),
    )


def remove_adapters(config: AdapterRemoveConfig) -> ComposedModel:
    """Writes a model without some of its domains.

    Raises:
      InputError: if the model lacks one of them, none would be left, or the folder
        cannot be written to.
      StoppedError: if a domain has changed.
      OSError: if the model cannot be written.
    """

    def remove(spec: ModelSpec, network: DomainModel) -> Model:
        for name in config.domains:
            if name not in spec.plan.names:
                raise InputError(
                    "`domains`",
                    expected=f"some of {', '.join(spec.plan.names)}",
                    received=name,
                )
        if len(config.domains) == len(spec.plan.names):
            raise InputError(
                "`domains`",
                expected=f"fewer than the {len(spec.plan.names)} of the model",
                received=", ".join(config.domains),
            )
        return compose({config.model_dir: (spec, network)}, config.domains)

    return _change(config.model_dir, config.output_dir, remove)


def load_model(
    model_dir: str, checkpoint: str = NEWEST
) -> tuple[ModelSpec, DomainModel, str]:
    """Calls `load_network`; rejects folders of independent models."""
    inner = [path.name for path in checkpoint_paths.inner_models(model_dir)]
    if inner and not checkpoint_paths.has_model(model_dir):
        raise InputError(
            model_dir,
            expected="a model whose domains share a trunk",
            received=f"independent models: {first_few(inner)}",
            hint="Adapters need a shared trunk, which independent models lack",
        )
    return load_network(model_dir, checkpoint=checkpoint)


def _change(
    model_dir: str,
    output_dir: str | None,
    change: Callable[[ModelSpec, DomainModel], Model],
) -> ComposedModel:
    """Applies `change` to a model and writes the result to its folder or another."""
    target = output_dir or model_dir
    is_in_place = pathlib.Path(target).resolve() == pathlib.Path(model_dir).resolve()
    with locks.locked(target):
        if not is_in_place:
            require_place_for_model(target)
        spec, network, path = load_model(model_dir)
        newest = spec, network
        if is_in_place:
            _require_untrained(path)
            older = _checkpoints_before(path)
            spec, network = _load_start(older, change, newest) or newest
        new_spec, new_network = change(spec, network)
        before = checksums.of_domains(spec, network)
        kept = {name: before[name] for name in before if name in new_spec.plan.names}
        seen = seen_domains([load_spec_and_state(model_dir)], new_spec)
        if not is_in_place:
            return save_composed(
                target, new_spec, new_network, kept, initial_cases=seen
            )
        if is_same_model(newest, (new_spec, new_network)):
            checkpoint_paths.remove(older)
        else:
            checksums.compare(kept, checksums.of_domains(new_spec, new_network))
            # The old checkpoint is removed once the new one is complete: a killed run
            # leaves one or both, and the newest is used.
            step = checkpoint_paths.step_of(path) + 1
            saver = Checkpoints(target, new_spec, new_network, {}, keep=1)
            saver.save(RunState(step=step, initial_cases=seen))
        return check_composed(target, kept)


def _checkpoints_before(path: str) -> list[str]:
    """Returns the checkpoints before the newest one, which only killed runs leave."""
    paths = checkpoint_paths.list_checkpoints(pathlib.Path(path).parent)
    return paths[: paths.index(path)]


def _load_start(
    older: Sequence[str], change: Callable[[ModelSpec, DomainModel], Model], new: Model
) -> Model | None:
    """Returns the model that a killed run of `change` started from.

    Args:
      older: the checkpoints before the newest one.
      change: the change.
      new: the model of the newest checkpoint.

    Returns:
      The model of one of `older` that `change` turns into `new`; None if there is none.
    """
    for path in map(pathlib.Path, older):
        try:
            spec, network, _ = load_network(path.parents[1], checkpoint=path.name)
            changed = change(spec, network)
        except InputError:
            # The checkpoint is damaged, or was left by a run with other arguments.
            continue
        if is_same_model(changed, new):
            return spec, network
    return None


def _require_untrained(checkpoint: str) -> None:
    """Raises InputError for a checkpoint that training could resume from."""
    if CheckpointReader(checkpoint).has_optimizers():
        raise InputError(
            checkpoint,
            expected="a composed model",
            received="a trained one, whose training could not be resumed afterwards",
            hint="Set `output_dir` to a new folder",
        )
