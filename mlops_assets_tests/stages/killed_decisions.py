"""Moves of champions in a process of their own that is killed (the fork server imports it)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

from mlops_assets.components.loading import load_product
from mlops_assets.registry import Registry
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.promotion.assets import decide_on
from mlops_assets.stages.promotion.decision_log import Origin
from mlops_assets.stages.promotion.plan import Requester, apply_plan, plan_rollback
from mlops_assets.storage import SnapshotStore

Moment = Literal["recorded", "previous moved", "champion moved"]


def _context(home: Path, defs: Path) -> ProductContext:
    artifacts = (home / "mlflow" / "artifacts").as_uri()
    registry = Registry(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}", artifacts)
    return ProductContext(load_product(defs), SnapshotStore(str(home / "store")), registry)


def _die_at(moment: Moment, survived: int) -> None:
    """Be killed at this moment of the move after so many."""
    from mlflow.tracking import MlflowClient

    really = {"set": MlflowClient.set_registered_model_alias}
    left = {"moves": survived}

    def deadly(self: MlflowClient, name: str, alias: str, version: str) -> None:
        last = left["moves"] == 0
        if last and (moment == "recorded" or (moment == "previous moved" and alias == "champion")):
            os.kill(os.getpid(), signal.SIGKILL)
        really["set"](self, name, alias, version)
        if alias == "champion":
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            left["moves"] -= 1

    MlflowClient.set_registered_model_alias = deadly


def decide_and_die(home: Path, defs: Path, country: str, moment: Moment) -> None:
    """What the step `champion` does, killed at a moment."""
    whole = _context(home, defs)
    ctx = whole.country(country)
    _die_at(moment, 0)
    model = ctx.current("model")
    assert model is not None
    decide_on(ctx, model, Origin("by hand"))


def roll_back_and_die(
    home: Path, defs: Path, countries: list[str], moment: Moment, survived: int
) -> None:
    """A rollback of many countries, killed at a moment of the country after so many."""
    whole = _context(home, defs)
    _die_at(moment, survived)
    apply_plan(
        whole,
        plan_rollback(whole, countries),
        Requester("ana", "prices went wrong"),
        lambda moved: None,
    )
