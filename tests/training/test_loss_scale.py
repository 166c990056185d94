import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.training import loss_scale
from u2net_tf.training.loss_scale import LossScale


def values(scale):
    return float(scale.value), int(scale.finite_steps)


def test_is_halved_at_an_overflow_and_restarts_the_count():
    scale = LossScale()
    assert values(scale) == (2.0**15, 0)
    scale.update(tf.constant(True))
    assert values(scale) == (2.0**15, 1)
    scale.update(tf.constant(False))
    assert values(scale) == (2.0**14, 0)
    assert int(scale.skipped_steps) == 1


def test_is_doubled_after_many_steps_without_overflow(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    scale = LossScale()
    seen = []
    for _ in range(7):
        scale.update(tf.constant(True))
        seen.append(values(scale))
    assert seen == [
        (2.0**15, 1),
        (2.0**15, 2),
        (2.0**16, 0),
        (2.0**16, 1),
        (2.0**16, 2),
        (2.0**17, 0),
        (2.0**17, 1),
    ]


@pytest.mark.parametrize(
    ("start", "finite", "end"),
    [(1.0, False, 1.0), (1.5, False, 1.0), (2.0**127, True, 2.0**127)],
)
def test_stays_within_its_bounds(monkeypatch, start, finite, end):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 1)
    scale = LossScale()
    scale.value.assign(start)
    scale.update(tf.constant(finite))
    assert np.isfinite(end)
    assert values(scale)[0] == end
