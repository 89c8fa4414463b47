"""What a person does to many countries at once, written down as one change set before it begins.

A change set is opened in the log `change_sets` of the product with all it is going to do, and
closed when it is
done or set back. One that was left open, because its process was killed, is finished by asking for
the same again, or undone.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pandas as pd

from mlops_assets.registry import Aliases
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.promotion.decision_log import now, with_new_names

ChangeKind = Literal["rollback", "promote", "approve", "undo", "withdraw"]
ChangeState = Literal["opened", "done", "set back"]
_LOG = "change_sets"
_OLDER_LOG = "units"


@dataclass(frozen=True)
class ChangeRequest:
    """What was asked for.

    Attributes:
        kind: what is to be done.
        countries: where.
        version: the version to put into use; "" for the one that follows from the kind.
        change_set: for undo: what is undone.
    """

    kind: ChangeKind
    countries: tuple[str, ...]
    version: str = ""
    change_set: str = ""


@dataclass(frozen=True)
class Move:
    """What happens in one country.

    Attributes:
        country: which.
        before: what the aliases name now.
        after: what they are to name.
        value_before: metric of the version in use, on the holdout it was judged on; NaN: unknown.
        value_after: the same of the version that comes into use.
        basis: id of the decision this one rests on: the one that waits, or that is undone.
    """

    country: str
    before: Aliases
    after: Aliases
    value_before: float = float("nan")
    value_after: float = float("nan")
    basis: str = ""


@dataclass(frozen=True)
class ChangeSet:
    """Moves that belong together.

    Attributes:
        id: by which it is undone.
        request: what was asked for.
        moves: what it does, by country.
        person: who asked.
        reason: why.
        opened_at: when it was written down, UTC.
        state: `opened` until it is done or set back.
    """

    id: str
    request: ChangeRequest
    moves: tuple[Move, ...]
    person: str
    reason: str
    opened_at: pd.Timestamp
    state: ChangeState = "opened"


def new_change_set(
    request: ChangeRequest, moves: Sequence[Move], person: str, reason: str
) -> ChangeSet:
    """A change set with an id of its own, not written down yet."""
    number = f"{request.kind}-{uuid.uuid4().hex[:8]}"
    return ChangeSet(number, request, tuple(moves), person, reason, now())


def record_state(ctx: ProductContext, change_set: ChangeSet, state: ChangeState) -> None:
    """Add a row to the log: the change set is in this state now."""
    row = {
        "change_set": change_set.id,
        "state": state,
        "at": now(),
        "opened_at": change_set.opened_at,
        "kind": change_set.request.kind,
        "countries": len(change_set.moves),
        "person": change_set.person,
        "reason": change_set.reason,
        "request": json.dumps(asdict(change_set.request)),
        "moves": json.dumps([_plain(move) for move in change_set.moves]),
    }
    ctx.store.append(ctx.path(_LOG), None, pd.DataFrame([row]))


def change_sets(ctx: ProductContext) -> dict[str, ChangeSet]:
    """Every change set by id, in the order they were opened, each in its last state."""
    found: dict[str, ChangeSet] = {}
    for row in _rows(ctx):
        if row["change_set"] in found:
            found[row["change_set"]] = replace(found[row["change_set"]], state=row["state"])
        else:
            found[row["change_set"]] = _change_set(row)
    return found


def _rows(ctx: ProductContext) -> list[dict[Any, Any]]:
    """What is recorded, oldest first; the log had another name before."""
    older, log = (ctx.store.read_log(ctx.path(name)) for name in (_OLDER_LOG, _LOG))
    renamed = with_new_names(older, {"unit": "change_set"})
    return [*renamed.to_dict("records"), *log.to_dict("records")]


def open_change_set(ctx: ProductContext) -> ChangeSet | None:
    """The change set that was begun and is neither done nor set back; None if there is none."""
    return next((u for u in change_sets(ctx).values() if u.state == "opened"), None)


def _change_set(row: Any) -> ChangeSet:
    asked = json.loads(row["request"])
    asked = {"change_set": asked.pop("unit", ""), **asked}
    return ChangeSet(
        id=row["change_set"],
        request=ChangeRequest(**{**asked, "countries": tuple(asked["countries"])}),
        moves=tuple(_move(held) for held in json.loads(row["moves"])),
        person=row["person"],
        reason=row["reason"],
        opened_at=row["opened_at"],
        state=row["state"],
    )


def _plain(move: Move) -> dict[str, Any]:
    held = asdict(move)
    return {name: None if value != value else value for name, value in held.items()}


def _move(held: Any) -> Move:
    before, after = (Aliases(**held[name]) for name in ("before", "after"))
    now_worth, then_worth = (
        float("nan") if held[name] is None else held[name]
        for name in ("value_before", "value_after")
    )
    return Move(held["country"], before, after, now_worth, then_worth, held["basis"])
