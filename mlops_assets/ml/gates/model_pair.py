"""Candidate and champion as they are compared: who they are, how new and how large."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from mlops_assets.ml.stats.metrics import NAN


@dataclass(frozen=True)
class ModelPair:
    """Who is compared.

    Args:
        candidate: registered version.
        champion: registered version; "" without one.
        candidate_until: event time of the newest row it learned from; None when not known.
        champion_until: the same of the champion.
        candidate_bytes: size of its files; 0 when not known.
        champion_bytes: the same of the champion.
    """

    candidate: str
    champion: str = ""
    candidate_until: pd.Timestamp | None = None
    champion_until: pd.Timestamp | None = None
    candidate_bytes: int = 0
    champion_bytes: int = 0

    @property
    def days_newer(self) -> float:
        """By how many days the candidate's newest row is newer; NaN when not known."""
        if self.candidate_until is None or self.champion_until is None:
            return NAN
        return (self.candidate_until - self.champion_until) / pd.Timedelta(days=1)

    def to_json(self) -> str:
        """As it is stored beside a candidate and with a decision."""
        return json.dumps(
            {
                "candidate": self.candidate,
                "champion": self.champion,
                "candidate_until": _iso(self.candidate_until),
                "champion_until": _iso(self.champion_until),
                "candidate_bytes": self.candidate_bytes,
                "champion_bytes": self.champion_bytes,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ModelPair:
        """What `to_json` wrote."""
        stored = json.loads(text)
        until = {name: stored[name] for name in ("candidate_until", "champion_until")}
        times = {name: pd.Timestamp(time) if time else None for name, time in until.items()}
        return cls(**{**stored, **times})


def _iso(time: pd.Timestamp | None) -> str | None:
    return None if time is None else time.isoformat()
