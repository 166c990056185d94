import itertools
import math
import sys
import tracemalloc

import numpy as np
import pytest

from u2net_tf.errors import StoppedError
from u2net_tf.evaluation import paired_statistics
from u2net_tf.evaluation.paired_statistics import Pair, paired_scores


def of(differences):
    """Statistics of pairs with these differences."""
    pairs = [Pair(f"case {i}", 0.5, 0.5 + d) for i, d in enumerate(differences)]
    return paired_scores("domain", "class", pairs)


def signed_rank_p(differences):
    """The p-value of the signed-rank test, from all 2^n signs."""
    size = np.abs(differences)
    ranks = np.array([(size < s).sum() + ((size == s).sum() + 1) / 2 for s in size])
    middle = ranks.sum() / 2
    observed = abs(ranks[np.array(differences) > 0].sum() - middle)
    sums = (
        abs(sum(itertools.compress(ranks, signs)) - middle)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    )
    return np.mean([each >= observed - 1e-9 for each in sums])


def test_means_and_counts():
    pairs = [Pair("a", 0.5, 0.75), Pair("b", 0.25, 0.125), Pair("c", 1.0, 1.0)]
    row = paired_scores("domain", "class", pairs)
    assert (row.domain, row.label, row.pairs) == ("domain", "class", tuple(pairs))
    assert row.baseline == pytest.approx(1.75 / 3)
    assert row.candidate == pytest.approx(1.875 / 3)
    assert row.difference == pytest.approx(0.125 / 3)
    assert (row.median, row.num_increased, row.num_decreased) == (0.0, 1, 1)


def test_p_value_equals_that_of_all_signs():
    differences = [0.1, -0.02, 0.3, 0.25, -0.05, 0.07, 0.4, -0.15, 0.01]
    assert of(differences).p_value == pytest.approx(signed_rank_p(differences))


def test_p_value_of_equal_differences():
    """They are ties although 0.3 - 0.2 and 0.2 - 0.1 differ in floating point."""
    values = [(0.1, 0.2), (0.2, 0.3), (0.7, 0.6), (0.0, 0.4), (0.0, 0.5)]
    row = paired_scores("d", "c", [Pair("", *each) for each in values])
    expected = signed_rank_p([0.1, 0.1, -0.1, 0.4, 0.5])
    assert row.p_value == pytest.approx(expected)


def test_p_value_ignores_unchanged_cases():
    assert of([0.1, 0.2, 0.3, 0.0]).p_value == pytest.approx(signed_rank_p([1, 2, 3]))


def test_interval_equals_that_of_the_normal_distribution():
    """For many differences, it is the mean plus and minus 1.96 standard errors."""
    differences = np.random.default_rng(3).normal(0.1, 0.05, 400)
    error = differences.std() / 20
    expected = differences.mean() + 1.96 * error * np.array([-1, 1])
    assert of(differences).interval == pytest.approx(expected, abs=0.1 * error)


def test_interval_of_skewed_differences():
    """One case that fails: the interval extends farther to its side."""
    row = of([0.0, 0.01, -0.01, 0.02, 0.0, 0.01, -0.02, -0.6])
    low, high = row.interval
    assert row.difference - low > 2 * (high - row.difference) > 0


def test_interval_is_the_same_each_time():
    # So many that quantiles of other resamples would differ.
    differences = np.random.default_rng(3).normal(0.1, 0.05, 50)
    assert of(differences).interval == of(differences).interval


def test_memory_is_limited(monkeypatch):
    """All resamples of thousands of cases would need gigabytes at the same time."""
    differences = np.random.default_rng(4).normal(0.1, 0.05, 1000)
    expected = of(differences).interval
    monkeypatch.setattr(paired_statistics, "_MAX_RESAMPLED", 100_000)
    tracemalloc.start()
    try:
        found = of(differences).interval
        assert tracemalloc.get_traced_memory()[1] < 1e7
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("differences", "p_value"), [([0.0, 0.0], None), ([0.2], 1.0), ([0.2] * 3, 0.25)]
)
@pytest.mark.filterwarnings("error")
def test_without_variation(differences, p_value):
    row = of(differences)
    assert all(map(math.isnan, row.interval))
    if p_value is None:
        assert math.isnan(row.p_value)
    else:
        assert row.p_value == p_value


def test_needs_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(StoppedError, match=r"pip install 'u2net-tf\[statistics\]'"):
        of([0.1, 0.2])
