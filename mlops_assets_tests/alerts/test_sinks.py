"""Every sink hands alerts to a real receiver, and says what went wrong without its address."""

from __future__ import annotations

import datetime as dt
import json
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mlops_assets.alerts import Alert, open_sink, sink_name, sinks
from mlops_assets.errors import AlertError
from mlops_assets.spec import SinkSpec
from mlops_assets_tests.alerts.receivers import Post, Received, http_receiver, smtp_receiver

SECRET = "T0P-S3CRET"
LOG = logging.getLogger("mlops_assets_tests.alerts")
ALERT = Alert(
    id="power_price incident since 2024-06-03: upstream",
    product="power_price",
    country="FRA",
    kind="incident",
    title="power_price: 24 countries alarm at once <& more>",
    text="price_lag_1 is empty.\nNext: retraining holds.\nYou can: look at the source. Zürich.",
    owners=("team:power", "ana@example.org"),
    link="http://dagster.example.org/assets/power_price/drift",
    at=dt.datetime(2024, 6, 3, 12, 30, tzinfo=dt.UTC),
)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with http_receiver() as received:
        monkeypatch.setenv("HOOK_URL", received.url)
        yield received


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    with smtp_receiver() as received:
        monkeypatch.setenv("MAIL_URL", f"smtp://127.0.0.1:{received.port}")
        yield received


def send(kind: str, alert: Alert = ALERT, **settings: Any) -> None:
    env = {"log": None, "email": "MAIL_URL"}.get(kind, "HOOK_URL")
    spec = SinkSpec.model_validate({"kind": kind, "url_env": env, **settings})
    open_sink(spec, LOG).send(alert)


def refusal(kind: str, **settings: Any) -> AlertError:
    """The error of a sink that does not take the alert, without its address anywhere."""
    with pytest.raises(AlertError) as caught:
        send(kind, **settings)
    error = caught.value
    everything = "".join(traceback.format_exception(error)) + repr(error.culprits)
    assert SECRET not in everything
    assert "not sent" in str(error)
    return error


def test_a_webhook_gets_the_alert_as_a_document_that_reads_back(web: Received) -> None:
    send("webhook")
    (document,) = web.documents
    assert set(document) == {
        "id", "product", "country", "kind", "title", "text", "owners", "link", "at",
    }  # fmt: skip
    assert Alert.from_json(json.dumps(document)) == ALERT
    assert document["at"] == "2024-06-03T12:30:00+00:00"


def test_a_slack_compatible_webhook_gets_one_text_with_everything_a_person_needs(
    web: Received,
) -> None:
    send("slack")
    (document,) = web.documents
    assert list(document) == ["text"]
    for part in ("&lt;&amp; more&gt;", "price_lag_1 is empty", "ana@example.org", ALERT.link):
        assert part in document["text"]


def test_mail_goes_to_owners_with_an_address_or_to_whom_the_yaml_names(post: Post) -> None:
    send("email", sender="ml@example.org")
    send("email", to=["desk@example.org", "ops@example.org"])
    assert post.receivers == ["ana@example.org", "desk@example.org", "ops@example.org"]
    first, second = post.mails
    assert first["From"] == "ml@example.org"
    assert second["To"] == "desk@example.org, ops@example.org"
    assert first["Subject"].startswith("[power_price] power_price: 24 countries")
    body = first.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "Zürich" in body.decode()


def test_a_title_of_several_lines_cannot_add_headers_to_a_mail(post: Post) -> None:
    send("email", replace(ALERT, title="broken\r\nBcc: spy@example.org"))
    assert post.receivers == ["ana@example.org"]
    assert "Bcc" not in post.mails[0]


def test_mail_logs_in_where_the_address_names_a_user(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.password = f"p@ss {SECRET}"
    address = f"smtp://robot:p%40ss%20{SECRET}@127.0.0.1:{post.port}"
    monkeypatch.setenv("MAIL_URL", address)
    send("email")
    assert post.logins == ["robot"]
    assert len(post.mails) == 1
    post.password = "another"
    assert "535" in str(refusal("email"))


def test_the_log_says_all_of_it_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    send("log")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert ALERT.text in record.getMessage()


@pytest.mark.parametrize("kind", ["webhook", "slack"])
@pytest.mark.parametrize("status", [302, 400, 404, 503])
def test_an_answer_that_is_no_yes_is_an_error_that_names_the_variable(
    web: Received, kind: str, status: int
) -> None:
    web.status, web.headers = status, {"Location": web.url}
    error = refusal(kind)
    assert str(status) in str(error)
    assert "HOOK_URL" in str(error)
    assert error.culprits["reached"]
    assert web.documents == []


@pytest.mark.parametrize(
    ("kind", "scheme"), [("webhook", "http"), ("slack", "http"), ("email", "smtp")]
)
def test_nobody_there_is_an_error_that_names_the_variable(
    kind: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = "MAIL_URL" if kind == "email" else "HOOK_URL"
    monkeypatch.setenv(env, f"{scheme}://u:{SECRET}@127.0.0.1:{port}/{SECRET}")
    error = refusal(kind)
    assert env in str(error)
    assert not error.culprits["reached"]


@pytest.mark.parametrize("kind", ["webhook", "slack"])
def test_a_receiver_that_never_answers_is_left_after_the_timeout(
    web: Received, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "TIMEOUT_SECONDS", 0.1)
    web.silent = threading.Event()
    error = refusal(kind)
    web.silent.set()
    assert "no answer within 0.1 seconds" in str(error)


def test_a_mail_server_that_never_greets_is_left_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MAIL_URL", f"smtp://127.0.0.1:{silent.getsockname()[1]}")
        error = refusal("email")
    assert not error.culprits["reached"]


@pytest.mark.parametrize("kind", ["webhook", "slack", "email"])
@pytest.mark.parametrize(
    "value", [None, "", "  ", SECRET, f"ftp://{SECRET}", f"http://h:{SECRET}", "smtp://"]
)
def test_a_variable_without_a_usable_address_is_named_and_its_value_is_not(
    kind: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = "MAIL_URL" if kind == "email" else "HOOK_URL"
    monkeypatch.delenv(env, raising=False)
    if value is not None:
        monkeypatch.setenv(env, value)
    assert env in str(refusal(kind))


def test_mail_for_nobody_says_how_to_name_somebody(post: Post) -> None:
    with pytest.raises(AlertError, match="no owner is a mail address"):
        send("email", replace(ALERT, owners=("team:power",)))
    assert post.mails == []


def test_a_receiver_that_the_mail_server_does_not_know_is_named(post: Post) -> None:
    post.refuses = "ana@example.org"
    assert "ana@example.org" in str(refusal("email"))


def test_a_password_is_not_sent_in_the_open_to_another_machine(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.password = SECRET
    monkeypatch.setattr(sinks, "_LOOPBACK", ())
    monkeypatch.setenv("MAIL_URL", f"smtp://robot:{SECRET}@127.0.0.1:{post.port}")
    assert "no TLS" in str(refusal("email"))
    assert post.logins == []


def test_names_of_sinks_tell_them_apart_and_hold_no_address(web: Received) -> None:
    specs = [
        SinkSpec(kind="log"),
        SinkSpec(kind="webhook", url_env="HOOK_URL"),
        SinkSpec(kind="slack", url_env="HOOK_URL"),
        SinkSpec(kind="email", url_env="MAIL_URL"),
        SinkSpec(kind="email", url_env="MAIL_URL", to=["a@b.c"]),
    ]
    names = [sink_name(spec) for spec in specs]
    assert len(set(names)) == len(names)
    assert not any(web.url in name for name in names)
