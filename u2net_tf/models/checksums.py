"""Checksums that show whether a change of a model left its domains bit-identical."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from tabulate import tabulate

from u2net_tf.errors import StoppedError
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.variables import own_by_name, shared_by_path
from u2net_tf.networks import ops
from u2net_tf.networks.domain_model import DomainModel


def of_domain(spec: ModelSpec, network: DomainModel, domain: int) -> str:
    """Returns the SHA-256 of a domain's variables and logits.

    It covers every variable that the domain uses, shared ones included, and the logits
    of a fixed patch of noise with 2 · 2**pools voxels along each axis. Two models with
    the same checksum on the same machine are bit-identical for this domain.

    Args:
      spec: specification of the network.
      network: network that contains the domain.
      domain: index of the domain.
    """
    checksum = hashlib.sha256()
    for variable in (*network.shared_variables, *network.domain_variables(domain)):
        checksum.update(variable.numpy().tobytes())
    size = [2 * 2**pools for pools in spec.pools]
    shape = (1, *size, network.num_modalities[domain])
    probe = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    checksum.update(logits_on_cpu(network, probe, domain).tobytes())
    return checksum.hexdigest()


def logits_on_cpu(network: DomainModel, patch: np.ndarray, domain: int) -> np.ndarray:
    """Returns the logits of a patch, bit-identical in every call on one machine.

    Args:
      network: network to compute them with.
      patch: (1, D, H, W, M), float32.
      domain: index of the domain.
    """
    # On a GPU the order of summation may differ from call to call. XLA would compile
    # every operation for every shape just for this call, and TensorFlow would warn
    # about it; all implementations use the same variables.
    with tf.device("CPU:0"), ops.use_implementation("plain"):
        return network(tf.constant(patch), domain=domain, training=False).numpy()


def of_trunk(network: DomainModel) -> str:
    """Returns `checksum_of_arrays` of the shared variables, named by their paths."""
    return _of_variables(shared_by_path(network))


def of_domain_variables(network: DomainModel, domain: int) -> str:
    """Returns `checksum_of_arrays` of the variables that only one domain uses.

    They are named as in `variables.own_by_name`, so that the checksum does not depend
    on the index of the domain in a model.

    Args:
      network: network that contains the domain.
      domain: index of the domain.
    """
    return _of_variables(own_by_name(network, domain))


def _of_variables(variables: Mapping[str, keras.Variable]) -> str:
    return checksum_of_arrays({n: v.numpy() for n, v in variables.items()})


def of_domains(spec: ModelSpec, network: DomainModel) -> dict[str, str]:
    """Returns `of_domain` of every domain, by name."""
    return {
        name: of_domain(spec, network, index)
        for index, name in enumerate(spec.plan.names)
    }


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Returns a table of the domains' checksums before and after a change.

    Args:
      before: domain -> checksum in the old model.
      after: domain -> checksum in the new model, which may have additional domains.

    Raises:
      StoppedError: if a domain has changed; the message contains the table.
    """
    rows = [
        (
            name,
            checksum[:16],
            after[name][:16],
            "identical" if after[name] == checksum else "DIFFERENT",
        )
        for name, checksum in before.items()
    ]
    headers = ("domain", "SHA-256 before", "after", "")
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    table += (
        "\nEach checksum covers all variables that the domain uses and its logits of a "
        "fixed patch."
    )
    if any(after[name] != checksum for name, checksum in before.items()):
        raise StoppedError(
            f"expected unchanged old domains. Received: changed ones\n{table}"
        )
    return table
