"""A champion that is worse than the naive rule goes out of use: a decision like any other."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.monitoring.beside_baseline import against_baseline
from mlops_assets.ml.monitoring.performance import PERFORMANCE_COLUMNS
from mlops_assets.registry import Aliases
from mlops_assets.stages.alerting.rules import look
from mlops_assets.stages.promotion import plan
from mlops_assets.stages.promotion.decision_card import stored_card
from mlops_assets.stages.promotion.decision_log import entries
from mlops_assets.stages.promotion.decision_replay import replay_decision
from mlops_assets.stages.promotion.plan import Requester, apply_plan, plan_undo
from mlops_assets.stages.retraining.state import read_state
from mlops_assets_tests.platform import Platform, failures
from mlops_assets_tests.stages.proposals import aliases, decide, in_use, shows
from mlops_assets_tests.stages.watched import asked, followed_up, launch, quiet_everywhere, watch

COUNTRY = "FRA"


def matured(platform: Platform, country: str, error: float, rows: int = 60) -> pd.DataFrame:
    """Performance of the champion on the newest known labels, at a share of its error."""
    features = platform.frame("features", country)
    known = features[features["label"].notna()].tail(rows)
    rng = np.random.default_rng(1)
    size, noise = float(known["label"].std()), rng.normal(size=(2, len(known)))
    blank: dict[str, Any] = dict.fromkeys(PERFORMANCE_COLUMNS, np.nan)
    return pd.DataFrame(
        {
            **blank,
            **{name: known[name].to_numpy() for name in ("entity", "event_time", "label_time")},
            "made": "ahead",
            "predicted_at": known["event_time"].to_numpy(),
            "model_version": in_use(platform, country),
            "model_kind": "local",
            "prediction": known["label"].to_numpy() + error * size * noise[0],
            "baseline": known["label"].to_numpy() + size * noise[1],
            "previous_version": "",
            "label": known["label"].to_numpy(),
            "first_label": known["label"].to_numpy(),
        }
    )


def seen(platform: Platform, country: str, error: float = 4.2, look: int = 1) -> None:
    """What `performance` leaves of such a champion."""
    table, spec = matured(platform, country, error), platform.product.resolved(country)
    gain = against_baseline(
        spec, table, in_use(platform, country), table["baseline"].to_numpy(dtype="float64")
    )
    watch(platform, country, on_baseline=gain, table=table, look=look)


def withdrawn(platform: Platform) -> dg.RunRequest:
    """The request of a tick after which FRA is taken out of use."""
    (request,) = asked(platform)
    result = launch(platform, request)
    assert result.success, failures(result)
    return request


@pytest.fixture
def naive(trained: Platform) -> Platform:
    """FRA back on the baseline: its first champion was 4.2 times worse."""
    quiet_everywhere(trained)
    seen(trained, COUNTRY)
    request = withdrawn(trained)
    assert request.job_name == "parcels_withdraw"
    return trained


def test_without_a_pooled_model_the_baseline_serves_by_a_decision_that_can_be_replayed(
    naive: Platform,
) -> None:
    assert aliases(naive, COUNTRY) == Aliases("", "1", "1")
    assert shows(naive, COUNTRY) == ""
    newest = entries(naive.context, COUNTRY)[-1]
    assert (newest.verdict, newest.before.champion, newest.after.champion) == ("withdrawn", "1", "")
    assert newest.origin.person == "retraining sensor"
    assert newest.origin.trigger.startswith("retraining sensor: withdraw: version 1 is")
    assert "there is no pooled model" in newest.comparison.decision.reason
    again = replay_decision(naive.context, newest.decision_id)
    assert again.same, again.differences
    assert "matured rows" in again.basis


def test_a_record_that_was_changed_does_not_replay(naive: Platform) -> None:
    newest = entries(naive.context, COUNTRY)[-1]
    folder = next(naive.home.rglob("withdrawal_evidence"))
    stored = next(folder.rglob("*.parquet"))
    rows = pd.read_parquet(stored)
    rows.assign(champion=rows["label"]).to_parquet(stored)
    again = replay_decision(naive.context, newest.decision_id)
    assert not again.same
    assert any(each.startswith("verdict: recorded 'withdrawn'") for each in again.differences)


def test_status_page_and_alert_say_that_the_baseline_serves_and_why(naive: Platform) -> None:
    followed = followed_up(naive)
    assert [each.partition_key for each in followed] == [COUNTRY]
    assert launch(naive, followed[0]).success
    card = stored_card(naive.context.country(COUNTRY), "1")
    assert "| verdict | withdrawn |" in card
    assert "gain of the champion on the baseline" in card
    page = str(naive.told("champion", COUNTRY))
    assert "gain of the withdrawn on the baseline" in page
    status = naive.status()[COUNTRY]
    assert (status.champion_version, status.champion_kind) == (None, "baseline")
    assert "the baseline serves: version 1: mae" in status.why
    told = look(naive.context, naive.instance, dt.datetime.now(dt.UTC)).conditions
    (alert,) = [each for each in told if each.kind == "rollback"]
    assert alert.title == "parcels FRA: version 1 was withdrawn for the baseline"
    assert "mlops-assets undo parcels withdraw-" in alert.text


def test_nothing_goes_round_what_was_withdrawn_is_asked_for_and_promoted_no_more(
    naive: Platform,
) -> None:
    assert asked(naive) == []
    decide(naive, COUNTRY)  # its candidate, which is the very version, is compared again
    assert in_use(naive, COUNTRY) == ""
    made = naive.store.current(("parcels", "features"), COUNTRY)
    assert made is not None
    frame = naive.frame("features", COUNTRY)
    frame["label"] = frame["label"] + 1.0
    naive.store.write(made.asset, COUNTRY, frame, metadata=made.metadata)
    decide(naive, COUNTRY)
    newest = entries(naive.context, COUNTRY)[-1]
    assert newest.verdict == "kept"
    assert "version 1 was withdrawn on" in newest.comparison.decision.reason
    assert in_use(naive, COUNTRY) == ""


def test_a_person_undoes_a_withdrawal_and_is_asked_from_then_on(naive: Platform) -> None:
    newest = entries(naive.context, COUNTRY)[-1]
    undoing = plan_undo(naive.context, newest.origin.change_set)
    apply_plan(naive.context, undoing, Requester("ana", "a label was wrong"), lambda moved: None)
    assert aliases(naive, COUNTRY).champion == "1"
    seen(naive, COUNTRY, look=2)
    assert asked(naive) == []


def test_rows_that_say_otherwise_by_now_withdraw_nothing_and_record_nothing(
    trained: Platform,
) -> None:
    quiet_everywhere(trained)
    seen(trained, COUNTRY)
    (request,) = asked(trained)
    watch(trained, COUNTRY, table=matured(trained, COUNTRY, 0.5), look=2)
    before = len(entries(trained.context, COUNTRY))
    assert launch(trained, request).success
    assert aliases(trained, COUNTRY) == Aliases("1", "", "1")
    assert len(entries(trained.context, COUNTRY)) == before


def test_another_version_in_use_by_now_is_left_alone(two: Platform) -> None:
    quiet_everywhere(two)
    seen(two, COUNTRY)
    (request,) = asked(two)
    config = json.loads(json.dumps(request.run_config).replace('"2"', '"1"'))
    assert not launch(two, dg.RunRequest(**{**request._asdict(), "run_config": config})).success
    assert in_use(two, COUNTRY) == "2"


def test_the_pooled_model_serves_where_there_is_one_and_is_not_chosen_again_once_withdrawn(
    ran: Platform,
) -> None:
    """One chain: pooled model, withdrawal for it, withdrawal of it, and a training after that."""
    pooled = ran.run(None, job="pooled")
    assert pooled.success, failures(pooled)
    first = in_use(ran, COUNTRY)
    seen(ran, COUNTRY)
    withdrawn(ran)
    newest, second = entries(ran.context, COUNTRY)[-1], in_use(ran, COUNTRY)
    assert newest.verdict == "withdrawn", newest
    assert second not in ("", first), newest.comparison.decision.reason
    assert "pooled gbm version 1 serves" in newest.comparison.decision.reason
    version = ran.context.country(COUNTRY).version(second)
    assert (version.kind, version.tags["pooled_version"]) == ("pooled", "1")
    assert {gate.name for gate in newest.comparison.gates} >= {"loads_and_predicts"}
    assert replay_decision(ran.context, newest.decision_id).same
    served = ran.run(COUNTRY, job="predict", assets=["predictions", "performance", "drift"])
    assert served.success, failures(served)
    assert ran.status()[COUNTRY].champion_kind == "pooled"
    looked = read_state(ran.context, ran.instance, dt.datetime.now(dt.UTC)).country_states
    assert {each.country for each in looked if each.serves_pooled} == {COUNTRY}

    seen(ran, COUNTRY, look=3)
    withdrawn(ran)
    newest = entries(ran.context, COUNTRY)[-1]
    assert (newest.verdict, in_use(ran, COUNTRY)) == ("withdrawn", "")
    assert "no pooled model is newer" in newest.comparison.decision.reason
    assert replay_decision(ran.context, newest.decision_id).same


def test_a_withdrawal_that_was_killed_on_its_way_is_finished_by_the_next_attempt(
    trained: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_everywhere(trained)
    seen(trained, COUNTRY)
    (request,) = asked(trained)

    class Killed(BaseException):
        """As if the process were gone: nothing is set back."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(plan, "carry_out", killed)
        assert not launch(trained, request).success
    assert in_use(trained, COUNTRY) == "1"
    again = dg.RunRequest(
        **{**request._asdict(), "tags": {**request.tags, "mlops_assets/request": "again"}}
    )
    assert launch(trained, again).success
    assert in_use(trained, COUNTRY) == ""
    done = [each for each in entries(trained.context, COUNTRY) if each.verdict == "withdrawn"]
    assert len(done) == 1
