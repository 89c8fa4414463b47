"""Whether the predictions of a candidate would be taken, asked before it comes into use."""

from __future__ import annotations

from mlops_assets.ml.gates.gates import GateResult, not_judged
from mlops_assets.ml.models.prediction_range import RangeVerdict, limits_of_history
from mlops_assets.spec import GateName, ProductSpec

_NAMES = {"holdout": "on the holdout", "next": "on the rows it would predict next"}
"""Rows in words."""


def within_range(
    holdout: RangeVerdict, next_rows: RangeVerdict | None, spec: ProductSpec
) -> GateResult:
    """Whether predictions of the candidate are refused neither on its holdout nor on what is next.

    The rows it would predict next are held to the rule that predictions are held to when they are
    made: what does not pass here would leave the country without them. The holdout is held to
    `beyond_share` (`prediction_range.limits_of_history`): one row of a long one stops nobody.

    Args:
        holdout: its predictions of the country's own holdout rows, by the limits of history.
        next_rows: those of the rows it would predict first; None: there are none.
        spec: the product as it is for this country.
    """
    name: GateName = "within_range"
    limits = {"holdout": limits_of_history(spec.predictions), "next": spec.predictions}
    judged = {"holdout": holdout, "next": next_rows or RangeVerdict(0)}
    asked = {where: each for where, each in judged.items() if each.rows}
    limit = spec.predictions.beyond_share
    if not asked:
        return not_judged(name, "there is no row to predict", limit)
    refused = {where: each for where, each in asked.items() if each.is_refused}
    told = [f"{_NAMES[where]}: {each.describe(limits[where])}" for where, each in asked.items()]
    if refused:
        told = [f"{_NAMES[w]}: {each.describe_refusal(limits[w])}" for w, each in refused.items()]
    numbers = {
        key: float(value)
        for where, each in asked.items()
        for key, value in ((f"{where}_rows", each.rows), (f"{where}_beyond", each.beyond))
    }
    share = max(each.beyond / each.rows for each in asked.values())
    return GateResult(name, not refused, share, limit, "; ".join(told), numbers)
