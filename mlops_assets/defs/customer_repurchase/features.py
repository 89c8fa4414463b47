"""Features and label of customers at monthly cut-offs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

ACTIVE_DAYS = 365
"""A customer is described at a cut-off if the last invoice is at most so long ago."""
LABEL_DAYS = 90
WINDOWS = (30, 90, 365)
"""Days before the cut-off in which invoices are counted."""
FADES_DAYS = 90.0
"""In so many days without an invoice the naive chance of another one falls to a third."""
_DAY = 86_400


def build(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
    """One row per customer and cut-off, for customers who have bought in the year before it.

    A feature counts invoices before the cut-off, and the label those from it on. Nothing here asks
    what day it is: the platform gives the cut-offs that are reached, and takes away the labels that
    are not known yet. Guests are left out; a country of guests alone has no row.

    Args:
        validated: one country's invoices by the contract.
        cutoffs: first days of months, in order.

    Returns:
        `entity` (customer), `event_time` (cut-off), `label` (1: buys within 90 days) and the
        features.
    """
    history = _History.of(validated[validated["customer"].notna()])
    rows = history.pairs(cutoffs)
    first, last = history.first[rows.customer], history.time_before(rows)
    made = pd.DataFrame(
        {
            "entity": history.names[rows.customer],
            "event_time": cutoffs[rows.cutoff],
            "label": (history.count(rows, 0, LABEL_DAYS) > 0).astype("float64"),
            "days_since_last": (rows.at - last) / _DAY,
            "days_since_first": (rows.at - first) / _DAY,
            **{f"invoices_{days}": history.count(rows, -days, 0) for days in WINDOWS},
            "spent_365": history.spent(rows, -365, 0),
            "month": cutoffs.month.to_numpy()[rows.cutoff],
        }
    )
    made["mean_gap"] = (last - first) / _DAY / history.count_before(rows)
    made["recency"] = np.exp(-made["days_since_last"] / FADES_DAYS)
    return made[made["days_since_last"] <= ACTIVE_DAYS]


@dataclass(frozen=True)
class _Pairs:
    """Customers with the cut-offs after their first invoice; all of shape (pairs,).

    Attributes:
        customer: place of the customer among the names.
        cutoff: place of the cut-off among those given.
        at: its time, in seconds since the beginning.
    """

    customer: np.ndarray
    cutoff: np.ndarray
    at: np.ndarray


@dataclass(frozen=True)
class _History:
    """Invoices ordered by customer and time, so that counts before a time are two look-ups.

    Attributes:
        names: of the customers.
        keys: of each invoice, ascending: its customer's place times `span`, plus its time.
        times: of each invoice, in seconds since 1970.
        first: time of each customer's first invoice.
        pence: sum of the amounts before each invoice and, last, of all; shape (invoices + 1,).
    """

    names: np.ndarray
    keys: np.ndarray
    times: np.ndarray
    first: np.ndarray
    pence: np.ndarray

    @classmethod
    def of(cls, invoices: pd.DataFrame) -> _History:
        """The history in rows of one country with a customer each."""
        codes, names = pd.factorize(invoices["customer"].astype("object"), sort=True)
        times = _seconds(invoices["invoiced_at"].to_numpy())
        order = np.lexsort((times, codes))
        codes, times = codes[order], times[order]
        # Whole pence: a sum of floats would depend on what was added after it.
        pence = np.rint(invoices["amount"].to_numpy("float64")[order] * 100).astype("int64")
        spent = np.concatenate([[0], np.cumsum(pence)])
        starts = np.searchsorted(codes, np.arange(len(names)))
        return cls(np.asarray(names), _keys(codes, times), times, times[starts], spent)

    def pairs(self, cutoffs: pd.DatetimeIndex) -> _Pairs:
        """Every customer at every cut-off after the first invoice."""
        at = _seconds(cutoffs.to_numpy())
        customer, cutoff = np.nonzero(self.first[:, None] < at[None, :])
        return _Pairs(customer, cutoff, at[cutoff])

    def time_before(self, rows: _Pairs) -> np.ndarray:
        """Time of the last invoice before each cut-off."""
        return self.times[self._place(rows, 0) - 1]

    def count(self, rows: _Pairs, begin: int, end: int) -> np.ndarray:
        """Invoices from `begin` to before `end`, in days after each cut-off."""
        return self._place(rows, end) - self._place(rows, begin)

    def count_before(self, rows: _Pairs) -> np.ndarray:
        """All invoices before each cut-off; at least 1."""
        return self._place(rows, 0) - np.searchsorted(self.keys, _keys(rows.customer, 0 * rows.at))

    def spent(self, rows: _Pairs, begin: int, end: int) -> np.ndarray:
        """Sum of the amounts of the same, GBP."""
        return (self.pence[self._place(rows, end)] - self.pence[self._place(rows, begin)]) / 100

    def _place(self, rows: _Pairs, days: int) -> np.ndarray:
        """Place of the customer's first invoice that is not before a time."""
        return np.searchsorted(self.keys, _keys(rows.customer, rows.at + days * _DAY))


def _seconds(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[s]").astype("int64")


def _keys(codes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """One number for customer and time; a time is less than 2 ** 36 seconds around 1970."""
    return codes.astype("int64") * 2**37 + seconds + 2**36
