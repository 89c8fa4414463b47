"""What a person is told."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

AlertKind = Literal[
    "incident", "alarm", "gate", "give_up", "failed_run", "rollback", "delivery", "sensor"
]


@dataclass(frozen=True)
class Alert:
    """One thing that people are told, once.

    Args:
        id: the same for the same incident.
        product: it is about.
        country: it is about; "" for several.
        kind: incident: most countries alarm at once; alarm: one does by itself; gate: a blocking
            check failed; give_up: a person is needed; failed_run: a run failed for another reason;
            rollback: the platform put the model of before into use; delivery: one is not used, or
            is unlike those before; sensor: a sensor or schedule fails, or alerts could not be
            raised of everything.
        title: in one line.
        text: what happened, since when, what happens next, what a person can do; several lines.
        owners: of the product.
        link: page or asset where more is seen.
        at: when it was raised, UTC.
    """

    id: str
    product: str
    country: str
    kind: AlertKind
    title: str
    text: str
    owners: tuple[str, ...]
    link: str
    at: dt.datetime

    def document(self) -> dict[str, Any]:
        """As a webhook gets it: every field by its name, `at` in ISO 8601."""
        return {**asdict(self), "owners": list(self.owners), "at": self.at.isoformat()}

    def message(self) -> str:
        """As a person reads it."""
        owners = f"Owners: {', '.join(self.owners)}" if self.owners else ""
        return "\n".join(part for part in (self.title, self.text, owners, self.link) if part)

    def to_json(self) -> str:
        """The document as text."""
        return json.dumps(self.document(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Alert:
        """What `to_json` wrote."""
        held = json.loads(text)
        at = dt.datetime.fromisoformat(held["at"])
        return cls(**{**held, "owners": tuple(held["owners"]), "at": at})
