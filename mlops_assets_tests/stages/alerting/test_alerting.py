"""The alerts sensor: once an incident, to every sink, later where one is down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import AlertsSpec, SinkSpec
from mlops_assets.stages.alerting import failed_runs
from mlops_assets.stages.alerting import sensor as alerting
from mlops_assets_tests.alerts.receivers import Post, Received, http_receiver, smtp_receiver
from mlops_assets_tests.platform import Platform, platform_of
from mlops_assets_tests.stages.proposals import COUNTRIES, PRODUCT, aliases, propose
from mlops_assets_tests.stages.watched import (
    ALARM,
    asked,
    launch,
    quiet_everywhere,
    said,
    watch,
)

COUNTRY = "FRA"
STATES = dg.DagsterRunStatus
HOOK = SinkSpec(kind="webhook", url_env="HOOK_URL")
CHAT = SinkSpec(kind="slack", url_env="CHAT_URL")
MAIL = SinkSpec(kind="email", url_env="MAIL_URL", to=["desk@example.org"])


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with http_receiver() as received:
        monkeypatch.setenv("HOOK_URL", received.url)
        yield received


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with http_receiver() as received:
        monkeypatch.setenv("CHAT_URL", received.url)
        yield received


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    with smtp_receiver() as received:
        monkeypatch.setenv("MAIL_URL", f"smtp://127.0.0.1:{received.port}")
        yield received


def told_to(platform: Platform, *sinks: SinkSpec, give_up_after: int = 3) -> Platform:
    """The same platform with these sinks, and without a cool-down."""
    spec = platform.product.spec
    policy = spec.retraining.model_copy(
        update={"cooldown_days": 0.0, "give_up_after": give_up_after}
    )
    changed = spec.model_copy(
        update={"alerts": AlertsSpec(sinks=list(sinks)), "retraining": policy}
    )
    quiet_everywhere(platform)
    return platform_of(replace(platform.product, spec=changed), platform.home, platform.instance)


def alarm_everywhere(platform: Platform, *, worse: bool = False) -> None:
    for country in COUNTRIES:
        watch(platform, country, drift=ALARM, worse=worse)


def ticks(platform: Platform, times: int = 1) -> str:
    """Ticks of the sensor, each as after a restart; the text of the last."""
    text = ""
    for _ in range(times):
        alerting._read.clear()
        failed_runs._known_failures.clear()
        text = said(platform, "alerts")
    return text


def failed_run(platform: Platform, country: str = COUNTRY, **tags: str) -> str:
    """A run that a crash ended; its id."""
    run = platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("parcels_all"),
        status=STATES.STARTED,
        tags={"product": PRODUCT, "dagster/partition": country, **tags},
    )
    platform.instance.report_run_failed(run, "the worker was out of memory")
    return run.run_id


def test_with_nothing_to_tell_nobody_hears_anything(trained: Platform, hook: Received) -> None:
    assert "nothing new to tell" in ticks(told_to(trained, HOOK), 2)
    assert hook.documents == []


def test_an_incident_is_told_once_with_what_happens_and_what_a_person_can_do(
    trained: Platform, hook: Received, chat: Received, post: Post
) -> None:
    platform = told_to(trained, HOOK, CHAT, MAIL)
    alarm_everywhere(platform)
    text = ticks(platform)
    assert text.count("1 of 1 sent") == 3
    ticks(platform, 2)
    (document,) = hook.documents
    assert (document["kind"], document["country"]) == ("incident", "")
    assert document["owners"] == list(platform.product.spec.owners)
    for part in ("demand_lag_0", "Since: 2024-05-27", "DEU, FRA, NOR", "Next: ", "You can: "):
        assert part in document["text"]
    assert document["link"] == "asset parcels/drift"
    assert len(chat.documents) == len(post.mails) == 1


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_link_leads_to_dagster_where_its_address_is_known(
    trained: Platform, hook: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_DAGSTER_UI", "http://dagster.example.org/")
    platform = told_to(trained, HOOK)
    alarm_everywhere(platform)
    ticks(platform)
    assert hook.documents[0]["link"] == "http://dagster.example.org/assets/parcels/drift"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_an_incident_is_told_again_when_labels_confirm_it_and_anew_when_another_begins(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    alarm_everywhere(platform)
    ticks(platform)
    alarm_everywhere(platform, worse=True)
    ticks(platform, 2)
    assert len(hook.documents) == 2
    assert "goes on" in hook.documents[1]["text"]
    quiet_everywhere(platform)
    ticks(platform, 2)
    assert len(hook.documents) == 2
    another = replace(ALARM, since=ALARM.end, end=ALARM.end)
    for country in COUNTRIES:
        watch(platform, country, drift=another)
    ticks(platform, 2)
    assert len(hook.documents) == 3


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_an_incident_whose_first_window_passes_out_of_sight_is_still_the_same(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    alarm_everywhere(platform)
    ticks(platform)
    for country in COUNTRIES:
        watch(platform, country, drift=replace(ALARM, since=ALARM.end))
    ticks(platform)
    assert len(hook.documents) == 1


def test_a_sink_that_is_down_gets_it_later_and_holds_up_no_other(
    trained: Platform, hook: Received, chat: Received
) -> None:
    platform = told_to(trained, HOOK, CHAT)
    hook.status = 503
    alarm_everywhere(platform)
    text = ticks(platform, 2)
    assert len(chat.documents) == 1
    assert "503" in text
    assert "S3CRET" not in text
    hook.status = 200
    ticks(platform, 2)
    assert len(hook.documents) == len(chat.documents) == 1


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_an_alert_that_a_sink_refuses_keeps_none_of_the_others_from_it(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    alarm_everywhere(platform)
    failed_run(platform)
    hook.refuses = "incident"
    assert "1 of 2 sent" in ticks(platform)
    assert [document["kind"] for document in hook.documents] == ["failed_run"]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_sink_that_is_new_is_not_told_of_the_past(
    trained: Platform, hook: Received, chat: Received
) -> None:
    first = told_to(trained, HOOK)
    failed_run(first)
    ticks(first)
    ticks(told_to(trained, HOOK, CHAT))
    assert (len(hook.documents), len(chat.documents)) == (1, 0)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_no_sinks_is_said(trained: Platform) -> None:
    assert "nobody is told" in ticks(told_to(trained))


def test_a_failed_run_is_told_once_and_again_only_after_one_that_went_well(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    first = failed_run(platform)
    ticks(platform)
    failed_run(platform)
    ticks(platform)
    (document,) = hook.documents
    assert (document["kind"], document["country"]) == ("failed_run", COUNTRY)
    assert "out of memory" in document["text"]
    assert first in document["text"]
    platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("parcels_all"),
        status=STATES.SUCCESS,
        tags={"dagster/partition": COUNTRY},
    )
    failed_run(platform)
    ticks(platform)
    assert len(hook.documents) == 2


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_many_failures_at_once_are_one_message(trained: Platform, hook: Received) -> None:
    platform = told_to(trained, HOOK)
    for place in range(5):
        failed_run(platform, f"C{place}")
    ticks(platform, 2)
    (document,) = hook.documents
    assert "5 runs failed" in document["title"]
    assert all(f"C{place}" in document["text"] for place in range(5))


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_runs_of_other_products_doubles_and_old_failures_are_no_news(
    trained: Platform, hook: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = told_to(trained, HOOK)
    failed_run(platform, product="another")
    failed_run(platform, **{"mlops_assets/duplicate_of": "r1"})
    assert "nothing new to tell" in ticks(platform)
    failed_run(platform)
    monkeypatch.setattr(failed_runs, "LOOKS_BACK", dt.timedelta(0))
    assert "nothing new to tell" in ticks(platform)


def test_a_failed_gate_is_told_once_while_it_fails_and_not_as_a_failed_run(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    impossible = platform.product.spec.gates.model_copy(update={"min_improvement": 0.99})
    strict = platform.product.spec.model_copy(update={"gates": impossible})
    refusing = platform_of(replace(platform.product, spec=strict), platform.home, platform.instance)
    for _ in range(2):
        assert not refusing.run(COUNTRY, job="train", assets=["model"]).success
        ticks(refusing)
    (document,) = hook.documents
    assert (document["kind"], document["country"]) == ("gate", COUNTRY)
    assert "model.beats_baseline" in document["text"]
    assert "the model in use stays" in document["text"]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_that_alarms_by_itself_is_told_once_a_cause_with_what_follows(
    trained: Platform, hook: Received
) -> None:
    platform = told_to(trained, HOOK)
    watch(platform, COUNTRY, worse=True, drift=ALARM)
    ticks(platform, 2)
    watch(platform, COUNTRY, worse=True, drift=ALARM, look=2)
    ticks(platform)
    assert [each["kind"] for each in hook.documents] == ["alarm", "alarm"]
    assert {each["country"] for each in hook.documents} == {COUNTRY}
    error, drift = hook.documents
    assert "significantly worse than it promised" in error["title"]
    assert "trained again" in error["text"]
    assert ALARM.reason in drift["text"]


def test_a_country_that_needs_a_person_is_told_once(trained: Platform, hook: Received) -> None:
    platform = told_to(trained, HOOK, give_up_after=1)
    propose(platform, COUNTRY, error=1.5)
    tags = {"mlops_assets/trigger": "retraining sensor: error: x"}
    assert platform.run(COUNTRY, job="train", assets=["champion"], tags=tags).success
    watch(platform, COUNTRY, worse=True)
    ticks(platform, 2)
    watch(platform, COUNTRY, worse=True, look=2)
    ticks(platform)
    (document,) = hook.documents
    assert (document["kind"], document["country"]) == ("give_up", COUNTRY)
    assert "1 candidates in a row were not promoted" in document["text"]
    assert "mlops-assets decisions parcels --country FRA" in document["text"]


def test_a_rollback_by_itself_is_told_with_how_to_undo_it(two: Platform, hook: Received) -> None:
    platform = told_to(two, HOOK)
    watch(platform, COUNTRY, on_previous=Estimate(-0.2, -0.3, -0.1))
    (request,) = asked(platform)
    assert launch(platform, request).success
    assert aliases(platform, COUNTRY).champion == "1"
    ticks(platform, 2)
    (document,) = hook.documents
    assert (document["kind"], document["country"]) == ("rollback", COUNTRY)
    assert "mlops-assets undo parcels" in document["text"]
    assert "significantly worse than version 1" in document["text"]


def test_what_was_raised_is_in_a_log_of_the_store(trained: Platform, hook: Received) -> None:
    platform = told_to(trained, HOOK)
    failed_run(platform)
    ticks(platform)
    log = platform.store.read_log((PRODUCT, "alerts"))
    assert list(log["event"]) == ["raised", "sent"]
    assert hook.url not in log.to_json()
