"""The distribution strategy of a run, and how XLA compiles its steps.

The strategy is created before anything else in TensorFlow uses a device: a strategy for
several machines cannot be created later.
"""

from __future__ import annotations

import functools
import os

import tensorflow as tf
from absl import logging

from u2net_tf import __version__, stop_signals
from u2net_tf.errors import InputError
from u2net_tf.networks.ops.implementations.triton.availability import (
    reason_unavailable,
)
from u2net_tf.training.cluster import ALONE, CONFIG_VARIABLE, Cluster, read_cluster
from u2net_tf.training.workers import Workers

_MULTI_WORKER = "multi_worker_mirrored"


def cluster_of(distribution: str) -> Cluster:
    """Returns the workers of a run; does not use any device yet.

    Raises:
      InputError: if TF_CONFIG is needed and not usable.
    """
    if distribution not in ("auto", _MULTI_WORKER):
        return ALONE
    cluster = read_cluster()
    if distribution == _MULTI_WORKER and cluster == ALONE:
        raise InputError(
            "`distribution`",
            expected=f"the addresses of at least two workers in {CONFIG_VARIABLE}",
            received=os.environ.get(CONFIG_VARIABLE) or "nothing",
        )
    return cluster


@functools.cache
def make_strategy(distribution: str) -> tf.distribute.Strategy:
    """Returns the strategy of `distribution`, a setting of `ComputeConfig`.

    Created once per process: two strategies would use the same numbers for their
    collective operations. With several workers, it waits for all of them.

    Raises:
      InputError: if TF_CONFIG is needed and not usable, or workers disagree.
      StoppedError: if another worker ends meanwhile.
    """
    cluster = cluster_of(distribution)
    if cluster != ALONE:
        return _connect(cluster)
    if distribution == "mirrored" or (
        distribution == "auto" and len(tf.config.list_logical_devices("GPU")) > 1
    ):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@functools.cache
def _connect(cluster: Cluster) -> tf.distribute.Strategy:
    """Returns the strategy of several workers once all of them are connected."""
    logging.info(
        "%s of %d: connecting", cluster.name(cluster.index), len(cluster.addresses)
    )
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        # Otherwise TensorFlow describes each collective operation.
        tf.get_logger().setLevel("WARNING")
    cluster.wait_for_others()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    stop_signals.reinstall()
    _workers_of(cluster).require_same(
        {
            "version": __version__,
            CONFIG_VARIABLE: ", ".join(cluster.addresses),
            "devices": strategy.num_replicas_in_sync // len(cluster.addresses),
        },
        {},
    )
    return strategy


@functools.cache
def _workers_of(cluster: Cluster) -> Workers:
    # Two objects would use the same numbers for their collective operations.
    return Workers(cluster)


def workers_of(strategy: tf.distribute.Strategy) -> Workers:
    """Returns the workers of a strategy, as seen from this process."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return _workers_of(read_cluster())
    return _workers_of(ALONE)


def workers_before_strategy(distribution: str) -> Workers:
    """Returns the workers of a run whose strategy may not exist yet.

    Args:
      distribution: a setting of `ComputeConfig`.

    Raises:
      InputError: see `cluster_of`.
    """
    return _workers_of(cluster_of(distribution))


def gpu_of(strategy: tf.distribute.Strategy) -> str | None:
    """Returns the GPU that a strategy of one replica computes on, or None."""
    gpus = tf.config.list_logical_devices("GPU")
    return gpus[0].name if gpus and strategy.num_replicas_in_sync == 1 else None


def compiles_steps(jit_compile: str) -> bool:
    """Returns whether XLA compiles steps, see `Trainer`.

    Args:
      jit_compile: "auto", "true" or "false".
    """
    if jit_compile == "auto":
        return bool(tf.config.list_logical_devices("GPU"))
    return jit_compile == "true"


def module_implementation(triton_kernels: str, *, jit_compile: bool) -> str | None:
    """Returns the implementation of the operations of a compiled step.

    Args:
      triton_kernels: "auto", "true" or "false".
      jit_compile: whether XLA compiles steps, see `Trainer`.

    Returns:
      "triton", or None for the default of `Trainer`.

    Raises:
      InputError: if `triton_kernels` is "true" and the kernels cannot be used.
    """
    if triton_kernels == "false" or (triton_kernels == "auto" and not jit_compile):
        return None
    reason = reason_unavailable() if jit_compile else "XLA does not compile the steps"
    if reason is None:
        logging.info("Triton kernels compute depthwise convolutions")
        return "triton"
    if triton_kernels == "true":
        raise InputError(
            "`triton_kernels`",
            expected="auto or false, unless XLA compiles steps for a GPU that runs "
            "Triton kernels",
            received=f"true, but {reason}",
        )
    if tf.config.list_logical_devices("GPU"):
        logging.warning("Triton kernels are not used, steps are slower: %s", reason)
    return None
