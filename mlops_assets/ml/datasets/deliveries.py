"""Which deliveries of a country are bad as such: each file version is judged by its own rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlops_assets.spec import ContractSpec

SURE = 0.01
"""A small delivery is refused when so many rejected rows, or more, would come by chance less often
than this, were the limit the true share."""

DeliveryVerdict = Literal["taken", "all_rejected", "refused"]


@dataclass(frozen=True)
class Judging:
    """What deliveries are judged by, and which ones.

    Attributes:
        limit: share of rows (0 to 1) that may break the contract.
        min_rows: fewest rows for which the share itself decides; fewer have to be over the limit
            for certain.
        new_since: first position of the newest deliveries, all of which are judged.
        again: positions of earlier ones that were not taken before, which are judged again.
        refused: positions that are refused whatever their rows are.
    """

    limit: float
    min_rows: int = 1
    new_since: int = 0
    again: Collection[int] = ()
    refused: Collection[int] = ()

    @classmethod
    def of(cls, contract: ContractSpec, new_since: int, again: Collection[int]) -> Judging:
        """By the limits of a country's contract."""
        limit, rows = contract.max_rejected_share, contract.delivery_min_rows
        return cls(limit, rows, new_since, again)

    def concerns(self, position: int) -> bool:
        """Whether the delivery at a position is judged."""
        return position >= self.new_since or position in self.again or position in self.refused

    def is_over(self, rows: int, rejected: int) -> bool:
        """Whether so many of the rows break the contract that a delivery is not taken."""
        if not rejected:
            return False
        if rows >= self.min_rows:
            return rejected / rows > self.limit
        return chance_of(rejected, rows, self.limit) < SURE


@dataclass(frozen=True)
class JudgedDelivery:
    """One file version as a country took it, and whether its rows are used.

    Attributes:
        position: among the country's deliveries, oldest first.
        rows: that stand.
        rejected: of them, and whose key no later delivery brought again in order.
        verdict: taken: rows that keep the contract are used; all_rejected: there is none, in too
            few rows to say more; refused: too many are rejected, and none is used.
        is_new: whether it came after the last good data.
    """

    position: int
    rows: int
    rejected: int
    verdict: DeliveryVerdict
    is_new: bool


def chance_of(rejected: int, rows: int, share: float) -> float:
    """Probability of `rejected` or more of `rows` when each is so with probability `share`.

    The upper tail of the binomial distribution, 0 to 1.
    """
    from scipy.special import bdtrc

    return float(bdtrc(rejected - 1, rows, share)) if rejected else 1.0


def judge_deliveries(
    position: np.ndarray,
    bad: np.ndarray,
    judging: Judging,
    corrected_by: Callable[[np.ndarray], np.ndarray],
) -> tuple[tuple[JudgedDelivery, ...], np.ndarray]:
    """Judge deliveries; a good row of a refused one corrects nothing in the others.

    Args:
        position: of the delivery of each row, shape (rows,).
        bad: which rows break the contract, shape (rows,).
        judging: limits, and what is judged.
        corrected_by: rows that are used -> the bad rows that they correct; each shape (rows,).

    Returns:
        The judged ones in order, and the rows of the refused ones, shape (rows,).
    """
    at, which = np.unique(position, return_inverse=True)
    rows = np.bincount(which, minlength=len(at))
    refused = np.isin(position, list(judging.refused))
    while True:  # fewer rows that correct, more that are refused: it ends
        standing = bad & ~corrected_by(~bad & ~refused) if bad.any() else bad
        rejected = np.bincount(which[standing], minlength=len(at))
        counted = zip(at.tolist(), rows.tolist(), rejected.tolist(), strict=True)
        found = tuple(_judged(*each, judging) for each in counted if judging.concerns(each[0]))
        now = np.isin(position, [each.position for each in found if each.verdict == "refused"])
        if (now == refused).all():
            return found, refused
        refused = now


def _judged(position: int, rows: int, rejected: int, judging: Judging) -> JudgedDelivery:
    is_refused = position in judging.refused or judging.is_over(rows, rejected)
    verdict: DeliveryVerdict = "taken" if rejected < rows else "all_rejected"
    is_new = position >= judging.new_since
    return JudgedDelivery(
        position, rows, rejected, "refused" if is_refused else verdict, is_new=is_new
    )
