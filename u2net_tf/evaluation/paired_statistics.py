"""Statistics of paired scores: those of two models on the same cases."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from u2net_tf.errors import StoppedError

_NUM_RESAMPLES = 9999
_CONFIDENCE = 0.95
# Maximum number of differences in the resamples that are in memory at the same time.
_MAX_RESAMPLED = 10_000_000


class Pair(NamedTuple):
    """Scores of one case, or means over the cases of one group.

    Attributes:
      name: name of the case or group.
      baseline: score of the baseline.
      candidate: score of the candidate.
    """

    name: str
    baseline: float
    candidate: float

    @property
    def difference(self) -> float:
        """The candidate's score minus that of the baseline, to nine decimals.

        Scores in files have six. Without this, equal differences, and means of equal
        scores in another order, would differ by rounding errors.
        """
        return round(self.candidate - self.baseline, 9)


@dataclasses.dataclass(frozen=True)
class PairedScores:
    """Paired scores of one class or region, and their statistics.

    Attributes:
      domain: name of the domain.
      label: name of the class or region.
      pairs: the pairs, at least one.
      baseline: mean score of the baseline.
      candidate: mean score of the candidate.
      median: median of the differences.
      interval: 95 % confidence interval of the mean difference, from the bootstrap
        (bias-corrected and accelerated, 9,999 resamples, fixed seed); NaN if all
        differences are equal or there is only one.
      p_value: of the two-sided Wilcoxon signed-rank test, which ignores differences of
        0; NaN if all are 0.
      num_increased: number of pairs in which the candidate's score is higher.
      num_decreased: number of pairs in which it is lower.

    Reference: Efron, Better bootstrap confidence intervals, JASA 1987; Wilcoxon,
    Individual comparisons by ranking methods, Biometrics Bulletin 1945.
    """

    domain: str
    label: str
    pairs: tuple[Pair, ...]
    baseline: float
    candidate: float
    median: float
    interval: tuple[float, float]
    p_value: float
    num_increased: int
    num_decreased: int

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return self.candidate - self.baseline


def paired_scores(domain: str, label: str, pairs: Sequence[Pair]) -> PairedScores:
    """Computes the statistics of pairs.

    Args:
      domain: name of the domain.
      label: name of the class or region.
      pairs: the pairs, at least one; their scores are finite.

    Raises:
      StoppedError: if SciPy is not installed.
    """
    differences = np.array([pair.difference for pair in pairs])
    return PairedScores(
        domain=domain,
        label=label,
        pairs=tuple(pairs),
        baseline=float(np.mean([pair.baseline for pair in pairs])),
        candidate=float(np.mean([pair.candidate for pair in pairs])),
        median=float(np.median(differences)),
        interval=_interval(differences),
        p_value=_p_value(differences),
        num_increased=int(np.sum(differences > 0)),
        num_decreased=int(np.sum(differences < 0)),
    )


def require_scipy() -> None:
    """Raises StoppedError if SciPy is not installed."""
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise StoppedError(
            "SciPy is required for comparisons but not installed: "
            "pip install 'u2net-tf[statistics]'"
        ) from error


def _interval(differences: np.ndarray) -> tuple[float, float]:
    if np.ptp(differences) == 0:
        return math.nan, math.nan
    require_scipy()
    from scipy import stats

    with warnings.catch_warnings():
        # The interval is then NaN.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=_NUM_RESAMPLES,
            batch=max(1, _MAX_RESAMPLED // len(differences)),
            confidence_level=_CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)


def _p_value(differences: np.ndarray) -> float:
    if not differences.any():
        return math.nan
    require_scipy()
    from scipy import stats

    return float(stats.wilcoxon(differences).pvalue)
