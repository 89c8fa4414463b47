"""Which rows a gate goes by: the country's own, or those of all countries of the pooled model.

One rule for countries of every size. Own rows that say for certain, either way, are gone by. Where
there are too few, or they cannot tell, a pooled candidate is judged by the holdout of all its
countries. So more rows never turn a model that serves into one that is refused, unless these rows
say for certain that it is not good enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlops_assets.ml.evaluation.behaviour import Behaved
from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.stats.metrics import Estimate, at_most, is_better
from mlops_assets.spec import BehaviourSpec, ProductSpec


@dataclass(frozen=True)
class Basis:
    """What a gate goes by.

    Args:
        report: on the rows it goes by; None: there are none.
        told: which rows these are and why, in words.
        pooled_rows: of the pooled model's report where that took part; 0 where it did not.
    """

    report: Report | None
    told: str
    pooled_rows: int = 0


@dataclass(frozen=True)
class OwnRows:
    """What the country's own rows say of a limit.

    Args:
        report: on them.
        problem: why what the limit is about cannot be told of them; "" if it can.
        verdict: True: it is kept; False: it is broken for certain; None: they cannot tell.
        told: what they say, in words.
        whose: they are, in words.
    """

    report: Report
    problem: str
    verdict: bool | None
    told: str = ""
    whose: str = "of the country"


def above(gain: Estimate, least: float) -> bool | None:
    """Whether a gain is for certain more than a limit; None: its interval has the limit in it."""
    if not gain.has_interval:
        return None
    if gain.lower > least or (least > 0 and gain.lower == least):
        return True
    return False if gain.upper < least else None


def keeps_floor(report: Report, floor: float) -> bool | None:
    """Whether the metric keeps an absolute limit; None: it does not, which may be chance."""
    if report.value == floor or is_better(report.metric, report.value, floor):
        return True
    ends = report.estimates.get(report.metric, Estimate(report.value))
    if not ends.has_interval:
        return None
    better = [end for end in (ends.lower, ends.upper) if is_better(report.metric, end, floor)]
    return None if better or floor in (ends.lower, ends.upper) else False


def basis_of(spec: ProductSpec, own: OwnRows, pooled: Report | None, *, helps: bool) -> Basis:
    """The rows that a limit is held against.

    Args:
        spec: the product as it is for the country.
        own: what its own holdout rows say.
        pooled: of the pooled model on the holdout of all its countries; None for a local one.
        helps: whether that report keeps the limit for certain.
    """
    report, needed = own.report, spec.split.min_holdout_rows
    enough = report.rows >= needed and not own.problem
    told = f"on {report.rows} holdout rows {own.whose}"
    stands_in = pooled is not None and pooled.judged
    if enough and (own.verdict is not None or not (stands_in and helps)):
        return Basis(report, told)
    few = f"the country has {report.rows} holdout rows of {needed} needed"
    why = few if report.rows < needed else own.problem
    if not stands_in or pooled is None:
        return Basis(None, f"not judged: {why}, and there is no pooled model to judge by")
    if own.verdict is False:
        return Basis(report, f"{told}, few as they are", pooled.rows)
    why = why or f"the {report.rows} of the country cannot tell ({own.told})"
    text = f"on {pooled.rows} holdout rows of all countries, because {why}"
    return Basis(pooled, text, pooled.rows)


def behaves(test: BehaviourSpec, own: Behaved, pooled: Behaved | None, chance: float) -> Behaved:
    """The outcome of a behavioural test that counts: the country's own, or that of all countries.

    Own rows that fail count when so few behave by chance in less than `chance` of the cases; else
    the test on the rows of all countries does, where it passes.

    Args:
        test: as the YAML has it.
        own: on the country's holdout rows.
        pooled: on those of all countries of the pooled model; None for a local one.
        chance: one-sided.
    """
    if own.passed or pooled is None or not pooled.passed:
        return own
    likely = at_most(own.behaved, own.rows, test.min_share) >= chance
    return pooled if not own.rows or likely else own
