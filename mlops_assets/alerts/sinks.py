"""Where alerts go. An address may hold a secret: neither logs nor errors ever name it."""

from __future__ import annotations

import logging
import os
import smtplib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import requests

from mlops_assets.alerts.records import Alert
from mlops_assets.errors import AlertError
from mlops_assets.spec import SinkSpec

TIMEOUT_SECONDS = 5.0
"""For a connection, and for each answer."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LATER = "It is sent again at the next tick."


class Sink(ABC):
    """Takes alerts, one at a time."""

    @abstractmethod
    def send(self, alert: Alert) -> None:
        """Hand an alert over.

        Raises:
            AlertError: it was not taken; `culprits["reached"]` says whether somebody answered.
        """


def open_sink(spec: SinkSpec, log: logging.Logger) -> Sink:
    """The sink of a product's YAML.

    Args:
        spec: what the YAML says.
        log: where the kind `log` writes.
    """
    if spec.kind == "log":
        return LogSink(log)
    assert spec.url_env is not None  # the spec refuses anything else
    if spec.kind == "email":
        return MailSink(spec.url_env, tuple(spec.to), spec.sender)
    return SlackSink(spec.url_env) if spec.kind == "slack" else WebhookSink(spec.url_env)


def sink_name(spec: SinkSpec) -> str:
    """What identifies a sink of a product, without its address."""
    to = f" to {', '.join(sorted(spec.to))}" if spec.to else ""
    return f"{spec.kind}{f' {spec.url_env}' if spec.url_env else ''}{to}"


@dataclass(frozen=True)
class LogSink(Sink):
    """Writes alerts to a log as warnings."""

    log: logging.Logger

    def send(self, alert: Alert) -> None:
        """Write it."""
        self.log.warning("%s", alert.message())


@dataclass(frozen=True)
class WebhookSink(Sink):
    """Posts the alert as a JSON document (`Alert.document`)."""

    url_env: str

    def send(self, alert: Alert) -> None:
        """Post it."""
        _post(self.url_env, alert.document(), "webhook")


@dataclass(frozen=True)
class SlackSink(Sink):
    """Posts the alert as a message to a Slack-compatible webhook."""

    url_env: str

    def send(self, alert: Alert) -> None:
        """Post it."""
        _post(self.url_env, {"text": _escaped(alert.message())}, "Slack webhook")


@dataclass(frozen=True)
class MailSink(Sink):
    """Mails the alert by SMTP; with TLS from the start (`smtps://`), or where it is offered.

    Args:
        url_env: environment variable with `smtp://user:password@host:port`.
        to: who gets it; empty: the owners that are addresses.
        sender: address it is from.
    """

    url_env: str
    to: tuple[str, ...]
    sender: str

    def send(self, alert: Alert) -> None:
        """Mail it."""
        address, to = _address(self.url_env, ("smtp", "smtps")), self._receivers(alert)
        with _smtp_errors(self.url_env), _connected(address) as server:
            self._log_in(server, address)
            refused = server.send_message(_mail(alert, self.sender, to))
        if refused:
            raise _refused(self.url_env, "mail server", f"it refused {', '.join(sorted(refused))}")

    def _receivers(self, alert: Alert) -> tuple[str, ...]:
        to = self.to or tuple(owner for owner in alert.owners if "@" in owner)
        if not to:
            raise AlertError(
                f"The alert for {alert.product} is for nobody: no owner is a mail address.",
                stored="It was not sent.",
                way_out="Name the receivers in `alerts.sinks.to`, or add an address to `owners`.",
                culprits={"reached": False},
            )
        return to

    def _log_in(self, server: smtplib.SMTP, address: SplitResult) -> None:
        if not address.username:
            return
        is_private = isinstance(server.sock, ssl.SSLSocket)
        if not is_private and address.hostname not in _LOOPBACK:
            problem = "it offers no TLS, and a password is not sent in the open"
            raise _refused(self.url_env, "mail server", problem, "Use smtps:// or its TLS port.")
        server.login(unquote(address.username), unquote(address.password or ""))


# HTTP


def _post(url_env: str, document: dict[str, Any], what: str) -> None:
    url = _address(url_env, ("http", "https")).geturl()
    try:
        # Not followed: what a redirect leads to was not configured.
        answer = requests.post(url, json=document, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        # Its text holds the address.
        raise _not_reached(url_env, what, _describe_error(error)) from None
    if not answer.ok or answer.is_redirect:
        try:
            phrase = HTTPStatus(answer.status_code).phrase
        except ValueError:
            phrase = "unknown status"
        raise _refused(url_env, what, f"it answered {answer.status_code} {phrase}")


def _describe_error(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS:g} seconds"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"the address cannot be used ({type(error).__name__})"


def _escaped(text: str) -> str:
    """Slack takes these three for its own marks."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Mail


@contextmanager
def _connected(address: SplitResult) -> Iterator[smtplib.SMTP]:
    host, context = address.hostname or "", ssl.create_default_context()
    if address.scheme == "smtps":
        port = address.port or smtplib.SMTP_SSL_PORT
        with smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context) as server:
            yield server
        return
    with smtplib.SMTP(host, address.port or smtplib.SMTP_PORT, timeout=TIMEOUT_SECONDS) as server:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
        yield server


@contextmanager
def _smtp_errors(url_env: str) -> Iterator[None]:
    """Errors of the mail server without what it was told, which may hold the password."""
    try:
        yield
    except smtplib.SMTPServerDisconnected:
        problem = f"it hung up, or said nothing within {TIMEOUT_SECONDS:g} seconds"
        raise _not_reached(url_env, "mail server", problem) from None
    except smtplib.SMTPResponseException as error:
        raise _refused(url_env, "mail server", f"it answered {error.smtp_code}") from None
    except smtplib.SMTPRecipientsRefused as error:
        names = ", ".join(sorted(error.recipients))
        raise _refused(url_env, "mail server", f"it refused {names}") from None
    except (smtplib.SMTPException, ValueError) as error:
        raise _refused(url_env, "mail server", type(error).__name__) from None
    except TimeoutError:
        problem = f"no answer within {TIMEOUT_SECONDS:g} seconds"
        raise _not_reached(url_env, "mail server", problem) from None
    except OSError as error:
        raise _not_reached(
            url_env, "mail server", f"no connection ({type(error).__name__})"
        ) from None


def _mail(alert: Alert, sender: str, to: Sequence[str]) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[{alert.product}] {alert.title}".split())
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Date"] = alert.at
    mail.set_content(alert.message())
    return mail


# Addresses and errors


def _address(url_env: str, schemes: tuple[str, ...]) -> SplitResult:
    """The address in an environment variable.

    Raises:
        AlertError: there is none, or none of these schemes.
    """
    text = os.environ.get(url_env, "").strip()
    if not text:
        raise AlertError(
            f"The environment variable {url_env}, with the address of a sink, is not set.",
            stored="The alert was not sent.",
            way_out=f"Set it where the code location runs. {_LATER}",
            culprits={"reached": False, "url_env": url_env},
        )
    address = _parsed(text)
    if address is None or address.scheme not in schemes or not address.hostname:
        starts = " or ".join(f"{scheme}://" for scheme in schemes)
        raise AlertError(
            f"The environment variable {url_env} holds no address that begins with {starts}.",
            stored="The alert was not sent.",
            way_out=f"Correct it where the code location runs. {_LATER}",
            culprits={"reached": False, "url_env": url_env},
        )
    return address


def _parsed(text: str) -> SplitResult | None:
    """An address in its parts; None where it is none, or its port is no number."""
    try:
        address = urlsplit(text)
        _ = address.port
    except ValueError:
        return None
    return address


def _not_reached(url_env: str, what: str, problem: str) -> AlertError:
    return AlertError(
        f"The {what} whose address is in {url_env} could not be reached: {problem}.",
        stored="The alert was not sent.",
        way_out=_LATER,
        culprits={"reached": False, "url_env": url_env},
    )


def _refused(url_env: str, what: str, problem: str, way_out: str = _LATER) -> AlertError:
    return AlertError(
        f"The {what} whose address is in {url_env} did not take the alert: {problem}.",
        stored="The alert was not sent.",
        way_out=way_out,
        culprits={"reached": True, "url_env": url_env},
    )
