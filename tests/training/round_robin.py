"""Rounds of training that check what each step changes, mostly in the real network.

Used by `test_isolation.py`, in its own process and, through `two_replicas.py`, on two
logical devices.
"""

import numpy as np
import tensorflow as tf
import toy

from u2net_tf.config.training import LossConfig
from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.conv_units import UNITS
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.step import Trainer

# The modes of 3D U²-Net, and another architecture, whose heads all have a loss.
SHARP = "unet_sharp"
MODES = (*UNITS, SHARP)
# Instead of a mode: the toy network, whose steps are traced quickly.
TOY = "toy"
NUM_ROUNDS = 2
# Large enough to change every variable visibly in one step.
WEIGHT_DECAY = 0.1


def make_trainer(mode, weight_decay=WEIGHT_DECAY, strategy=None, **options):
    """Makes a trainer in float64, so that different ways to compute can be compared."""
    strategy = strategy or tf.distribute.get_strategy()
    adapter, build = mode, build_network
    if mode == TOY:
        adapter, build = "none", toy.build_toy_network
    settings = {}
    if mode == SHARP:
        adapter, settings = "separable", {"architecture": SHARP, "depth": 1}
    spec = ModelSpec(
        plan=toy.PLAN, pools=(0, 1, 1), base_channels=2, adapter=adapter, **settings
    )
    with strategy.scope():
        network = build(spec, dtype="float64")
    generator = np.random.default_rng(0)
    for variable in network.variables:
        # No bias starts at 0, where decay would have no effect.
        noise = generator.normal(size=variable.shape)
        variable.assign(("gamma" in variable.path) + 0.3 * noise)
    return Trainer(
        network,
        learning_rate=0.01,
        weight_decay=weight_decay,
        weight_ema_decay=0.5,
        strategy=strategy,
        head_weights=head_weights(LossConfig(), spec),
        **options,
    )


def copies_of(trainer, variables):
    """Returns the values of the variables, each as a list of its replicas' copies."""
    results = trainer.strategy.experimental_local_results
    return [
        [copy.numpy().copy() for copy in results(variable.value)]
        for variable in variables
    ]


def values_of_trainer(trainer):
    """Returns all variables of network and optimizers, on every replica."""
    optimizers = [variable for o in trainer.optimizers for variable in o.variables]
    return copies_of(trainer, [*trainer.network.variables, *optimizers])


def has_gradient(variable):
    """Tells whether any loss depends on the variable.

    A norm removes any constant that was added to all voxels: a bias right before it,
    and in the series mode also the offset of the adapter's norm, which reaches the
    unit's norm through a pointwise convolution.
    """
    head = "/head" in variable.path
    adapter_offset = "/adapter_norm/beta_" in variable.path
    return head or not ("/bias" in variable.path or adapter_offset)


def train(trainer):
    """Takes the steps; returns the losses.

    Raises:
      AssertionError: if a step changes anything of another domain, or does not change
        one of its own or of the shared variables.
    """
    network, num_domains = trainer.network, trainer.network.num_domains
    losses = []
    for number in range(NUM_ROUNDS * num_domains):
        domain = number % num_domains
        others = [other for other in range(num_domains) if other != domain]
        other_variables = [v for t in others for v in network.domain_variables(t)]
        slots = [v for t in others for v in trainer.domain_optimizers[t].variables]
        used = [*network.shared_variables, *network.domain_variables(domain)]
        others_before = copies_of(trainer, [*other_variables, *slots])
        used_before = copies_of(trainer, used)
        losses.append(trainer.step(domain, _draw_batch(trainer, domain, number)))
        others_after = copies_of(trainer, [*other_variables, *slots])
        for before, after in zip(others_before, others_after, strict=True):
            toy.assert_identical(before, after)
        for variable, before, after in zip(
            used, used_before, copies_of(trainer, used), strict=True
        ):
            _check_change(trainer, variable, before, after)
    return losses


def _check_change(trainer, variable, before, after):
    for one, other in zip(before, after, strict=True):
        if has_gradient(variable) or trainer.shared_optimizer.l2_factor:
            # Adam's steps are about as long as the learning rate.
            assert np.max(np.abs(one - other)) > 1e-5, variable.path
        else:
            # Its gradient consists only of rounding errors.
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def _draw_batch(trainer, domain, seed):
    """Draws a batch; several replicas each get the same one."""
    size = (3, 4, 4)
    batch = toy.draw_batch(toy.PLAN.domains[domain], seed, size, dtype="float64")
    del batch["case"]
    if trainer.strategy.num_replicas_in_sync == 1:
        return batch
    distribute = trainer.strategy.experimental_distribute_values_from_function
    return {key: distribute(lambda _, key=key: batch[key]) for key in batch}
