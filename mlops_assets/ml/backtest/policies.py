"""When a backtest through history trains again: `never`, `every 30d`, `drift`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.spec import ProductSpec, duration
from mlops_assets.spec.fields import DURATION

_EVERY = re.compile(rf"every\s+({DURATION.pattern})")


@dataclass(frozen=True)
class Policy:
    """One rule of when to train again.

    Args:
        name: as a person wrote it; unique in a backtest.
        kind: never: each country once, when it has enough rows; every: all countries and the
            pooled models each `period`; drift: what `retraining.plan` asks for by the product's
            own `monitoring` and `retraining`.
        period: of kind every; None for the others.
        rules: the product whose `retraining`, `decision` and `monitoring` it goes by, in which it
            differs in nothing else from that of the backtest; None: that one itself.
    """

    name: str
    kind: Literal["never", "every", "drift"]
    period: pd.Timedelta | None = None
    rules: ProductSpec | None = field(default=None, hash=False)

    def due(self, start: pd.Timestamp, before: pd.Timestamp, now: pd.Timestamp) -> bool:
        """Whether a time of kind every (`start` plus n periods) is after `before` and up to `now`.

        The times do not move with the moments of the backtest, so that it is as often as said.
        """
        if self.period is None:
            return False
        return (now - start) // self.period > (before - start) // self.period


def parse_policy(text: str) -> Policy:
    """A policy from its words.

    Raises:
        ConfigurationError: it is none.
    """
    words = " ".join(text.split())
    if words == "never":
        return Policy(words, "never")
    if words == "drift":
        return Policy(words, "drift")
    found = _EVERY.fullmatch(words)
    if found:
        period = parse_period(found[1])
        return Policy(words, "every", period)
    raise ConfigurationError(
        f"{text!r} is not a policy.",
        stored="Nothing was read or trained.",
        way_out="Write never, drift, or a period such as 'every 30d' (hours h, days d, weeks w).",
        culprits={"policy": text},
    )


def parse_period(text: str) -> pd.Timedelta:
    """A length of time such as 12h, 30d or 1w.

    Raises:
        ConfigurationError: it is none, or no time at all.
    """
    period = pd.Timedelta(duration(text)) if DURATION.fullmatch(text) else pd.Timedelta(0)
    if period > pd.Timedelta(0):
        return period
    raise ConfigurationError(
        f"{text!r} is not a length of time.",
        stored="Nothing was read or trained.",
        way_out="Write a number of hours, days or weeks, such as 12h, 30d or 1w.",
        culprits={"period": text},
    )
