"""What people are told of, one condition at a time or many of a kind together."""

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from mlops_assets.alerts import Alert, AlertKind
from mlops_assets.product import Product
from mlops_assets.stages.common.base import asset_key

LOOKS_BACK = dt.timedelta(days=3)
"""Runs that failed and rollbacks that were done before that are no news."""
_AS_ONE = 3
"""So many of a kind at once are told one by one; more of them together."""


@dataclass(frozen=True)
class AlertCondition:
    """Something that people are told of once.

    Attributes:
        id: the same as long as it lasts.
        kind: of the alert.
        country: it is about; "" for several.
        title: in one line.
        text: what happened, what happens next, what a person can do.
        page: path of the page of Dagster that shows it.
        place: the same in words, where no address of Dagster is known.
    """

    id: str
    kind: AlertKind
    country: str
    title: str
    text: str
    page: str
    place: str


@dataclass(frozen=True)
class Group:
    """Conditions of one kind that are told together."""

    conditions: Sequence[AlertCondition] = field(default_factory=tuple)

    @property
    def covers(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(each.id for each in self.conditions)

    def alert(self, product: Product, now: dt.datetime, ui: str) -> Alert:
        """As people are told.

        Args:
            product: it is about.
            now: when it is raised.
            ui: address of Dagster; "" when it is not known.
        """
        first = self.conditions[0]
        alone = len(self.conditions) == 1
        return Alert(
            id=first.id if alone else f"together {digest(self.covers)}",
            product=product.name,
            country=first.country if alone else "",
            kind=first.kind,
            title=first.title if alone else self._title(product),
            text=first.text if alone else "\n".join(f"- {each.title}" for each in self.conditions),
            owners=tuple(product.spec.owners),
            link=f"{ui}{first.page}" if ui else first.place,
            at=now,
        )

    def _title(self, product: Product) -> str:
        what = {
            "gate": "gates failed",
            "give_up": "countries need a person",
            "delivery": "deliveries need a person",
            "failed_run": "runs failed",
            "rollback": "models were rolled back",
            "incident": "incidents",
            "alarm": "alarms of countries",
            "sensor": "sensors fail",
        }[self.conditions[0].kind]
        return f"{product.name}: {len(self.conditions)} {what}"


def together(found: Sequence[AlertCondition]) -> list[Group]:
    """Few of a kind one by one, many of a kind as one: an outage is one message."""
    kinds = dict.fromkeys(each.kind for each in found)
    groups = []
    for kind in kinds:
        alike = [each for each in found if each.kind == kind]
        many = len(alike) > _AS_ONE
        groups += [Group(tuple(alike))] if many else [Group((each,)) for each in alike]
    return groups


def asset_page(product: Product, asset: str, country: str = "") -> tuple[str, str]:
    """Path of an asset's page in Dagster, and the asset in words."""
    key = "/".join(quote(part) for part in asset_key(product, asset).path)
    partition = f"?view=partitions&partition={quote(country)}" if country else ""
    place = f"asset {product.name}/{asset}" + (f", partition {country}" if country else "")
    return f"/assets/{key}{partition}", place


def sentence(text: str) -> str:
    """The text with a full stop, unless it has an end already."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def digest(parts: Iterable[object]) -> str:
    """16 hex digits over parts, in whatever order they come."""
    named = "\n".join(sorted(map(str, parts)))
    return hashlib.sha256(named.encode()).hexdigest()[:16]
