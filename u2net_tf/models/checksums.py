"""Shows that a model serves a domain as before, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from u2net_tf.errors import StoppedError
from u2net_tf.models.spec import ModelSpec


def of_domain(spec: ModelSpec, network, domain: int) -> str:
    """SHA-256 over what one domain computes with, and what comes out.

    Over every variable that the domain reads, and over its logits of a patch of noise
    that is always the same: 2 · 2**pools voxels along each axis. If it is the same for
    two models on one machine, they serve this domain alike, bit for bit.

    Args:
      spec: what the network is.
      network: the network.
      domain: index of the domain.
    """
    checksum = hashlib.sha256()
    for variable in (*network.shared_variables, *network.domain_variables(domain)):
        checksum.update(variable.numpy().tobytes())
    size = [2 * 2**pools for pools in spec.pools]
    shape = (1, *size, network.num_modalities[domain])
    probe = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    # Not on a GPU, where the same sums may be taken in another order each time.
    with tf.device("CPU:0"):
        logits = network(tf.constant(probe), domain=domain, training=False)
    checksum.update(logits.numpy().tobytes())
    return checksum.hexdigest()


def of_domains(spec: ModelSpec, network) -> dict[str, str]:
    """`of_domain` of every domain, by name."""
    return {
        name: of_domain(spec, network, index)
        for index, name in enumerate(spec.plan.names)
    }


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A table of what the domains were and what they are now.

    Args:
      before: domain -> checksum.
      after: the same of the new model; may hold further domains.

    Raises:
      StoppedError: if a domain has changed; holds the table.
    """
    width = max(len("domain"), *map(len, before))
    rows = [f"{'domain':{width}}  {'SHA-256 before':16}  after"]
    for name, checksum in before.items():
        verdict = "identical" if after[name] == checksum else "DIFFERENT"
        rows.append(f"{name:{width}}  {checksum[:16]}  {after[name][:16]}  {verdict}")
    rows.append(
        "Each over all variables that the domain reads and its logits of a fixed patch."
    )
    table = "\n".join(rows)
    if any(after[name] != checksum for name, checksum in before.items()):
        raise StoppedError(
            f"expected the old domains unchanged. Received: changed ones\n{table}"
        )
    return table
