import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.errors import StoppedError
from u2net_tf.models import checksums
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.plan.domains import Plan

THREE = dataclasses.replace(toy.TWO, name="Task93_Three")


class TestOfDomain:
    def test_depends_on_every_variable_that_the_domain_uses(self, monkeypatch):
        plan = Plan((toy.ONE, toy.TWO, THREE))
        spec = ModelSpec(plan=plan, pools=(1, 1, 1), base_channels=4)
        network = toy.build_toy_network(spec)
        # The logits never change, so only the variables can change the checksum.
        monkeypatch.setattr(
            toy.ToyNetwork,
            "call",
            lambda self, inputs, **options: tf.zeros_like(inputs),
        )
        before = checksums.of_domains(spec, network)
        assert len(set(before.values())) == 3

        def domains_that_change_with(variable):
            original = variable.numpy()
            changed = original.copy()
            changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
            variable.assign(changed)
            after = checksums.of_domains(spec, network)
            variable.assign(original)
            return [name for name in before if after[name] != before[name]]

        for index, name in enumerate(plan.names):
            assert len(network.domain_variables(index)) == 2
            for variable in network.domain_variables(index):
                assert domains_that_change_with(variable) == [name]
        (variable,) = network.shared_variables
        assert domains_that_change_with(variable) == list(plan.names)

    def test_depends_on_the_logits(self, monkeypatch):
        spec, network = toy.make_model()
        before = checksums.of_domain(spec, network, 0)
        norm = ops.instance_norm
        monkeypatch.setattr(ops, "instance_norm", lambda *a, **k: 1.01 * norm(*a, **k))
        assert checksums.of_domain(spec, network, 0) != before

    def test_compiles_nothing(self, monkeypatch):
        """XLA would compile every operation and shape, and TensorFlow would warn."""
        used = set()
        norm = ops.instance_norm

        def recorded(*arguments, **options):
            used.add(ops.current_implementation())
            return norm(*arguments, **options)

        monkeypatch.setattr(ops, "instance_norm", recorded)
        checksums.of_domain(*toy.make_model(), 0)
        assert used == {"plain"}


def test_compare():
    before = {"Task91_One": "1" * 64, "T": "2" * 64}
    table = checksums.compare(before, {**before, "new": "3" * 64})
    assert table.splitlines() == [
        "domain      SHA-256 before    after",
        "Task91_One  1111111111111111  1111111111111111  identical",
        "T           2222222222222222  2222222222222222  identical",
        "Each checksum covers all variables that the domain uses and its logits of a "
        "fixed patch.",
    ]
    with pytest.raises(StoppedError, match="T  .* DIFFERENT"):
        checksums.compare(before, {**before, "T": "3" * 64})
