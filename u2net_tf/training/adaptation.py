"""A new domain for a trained network, with the old ones left bit for bit as they were.

What domains share is frozen; the new domain's stem, head, deep supervision, adapters
and norms are added and trained, and nothing else is.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from typing import Any

import keras
from absl import logging

from u2net_tf.command import InputError
from u2net_tf.input.pipeline import InputSettings
from u2net_tf.manifest import load_converted
from u2net_tf.models import checksums, composition
from u2net_tf.models.checkpoints import load_network
from u2net_tf.training import start
from u2net_tf.training.loop import Run, RunSettings
from u2net_tf.training.schedule import PlateauRule
from u2net_tf.training.trainer import Trainer


def adapt(
    *,
    parent_dir: str | os.PathLike,
    domain: str,
    init: str,
    inputs: InputSettings,
    optimizer: dict[str, Any],
    rule: PlateauRule,
    settings: RunSettings,
    computing: dict[str, Any],
    distribution: str,
    flags_text: str,
) -> Run:
    """Adds a domain to a model and trains what is the domain's own.

    Prints a checksum for each old domain, of the parent and of the model as it was
    saved and loaded again.

    Args:
      parent_dir: folder of the model to start from; it is only read.
      domain: name of the new domain in the plan of `inputs.data_dir`.
      init: "random", "mean" or the name of an old domain; see `composition.extend`.
      inputs: input pipeline; the network's patch and how patches are resized are the
        parent's.
      optimizer: as for `start.train`, like all that follow.
      rule: learning rate and end.
      settings: length of the run and what is kept.
      computing: as for `start.train`.
      distribution: "auto", "none" or "mirrored".
      flags_text: written to `flags.txt`.

    Raises:
      InputError: if model, data and flags contradict each other.
      StoppedError: if the loss is not finite or an old domain has changed.

    Reference: 3D U²-Net, section 3, "Adapting to a new domain".
    """
    started = time.monotonic()
    parent_spec, parent, checkpoint = load_network(parent_dir)
    model_dir = pathlib.Path(settings.model_dir).resolve()
    if model_dir.is_relative_to(pathlib.Path(parent_dir).resolve()):
        raise InputError(
            "--model_dir: expected another folder than --from and none in it, found "
            f"{settings.model_dir}"
        )
    plan, manifests = load_converted(inputs.data_dir, [domain])
    (new,) = start.without_skipped(plan, manifests).domains
    inputs = dataclasses.replace(
        inputs,
        patch_size=parent_spec.patch_size,
        resize_method=parent_spec.resize_method,
    )
    strategy = start.make_strategy(distribution)
    spec = composition.with_domain(parent_spec, new)
    start.check_sizes(spec, [new], inputs, strategy)
    keras.utils.set_random_seed(inputs.seed)
    with strategy.scope():
        spec, network = composition.extend(
            parent_spec, parent, new, init=init, **computing
        )
    before = checksums.of_domains(parent_spec, parent)
    logging.info("added %s to the %d domains of %s", domain, len(before), checkpoint)
    trainer = Trainer(
        network,
        learning_rate=rule.learning_rate,
        strategy=strategy,
        domains=[len(before)],
        train_shared=False,
        **optimizer,
    )
    identity = {"init": init}
    run = Run(trainer, spec, manifests, inputs, rule, settings, identity)
    if run.restore() and not _frozen_alike(parent, network):
        raise InputError(
            f"--from: expected the parent of the model in {settings.model_dir}, found "
            f"another, {checkpoint}"
        )
    start.finish(run, settings.model_dir, flags_text, started=started)
    saved_spec, saved, _ = load_network(settings.model_dir)
    after = checksums.of_domains(saved_spec, saved)
    print(checksums.compare(before, after))
    return run


def _frozen_alike(parent, network) -> bool:
    pairs = [(parent.shared_variables, network.shared_variables)]
    for index in range(parent.num_domains):
        pairs.append((parent.domain_variables(index), network.domain_variables(index)))
    return all(composition.identical(one, other) for one, other in pairs)
