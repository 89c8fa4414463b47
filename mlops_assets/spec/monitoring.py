"""How a model in use is watched, when it is trained again, and who is told."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.spec.fields import Strict, Text, Variable, added_later, refuse, rule_broken

Cause = Literal["error", "drift", "no_model", "new_labels", "age", "schedule", "follow_up"]
"""Why a country is trained again; the strongest first, and a follow-up last."""


class MonitoringSpec(Strict):
    """What is compared with what the champion was trained on, and with what it promised."""

    period: Literal["day", "week", "month"] = Field(
        default="week", description="length of a row of the realised error", examples=["week"]
    )
    window_days: int = Field(
        default=28,
        ge=1,
        le=366,
        description="days of events in a window that is compared with the champion's reference",
        examples=[28],
    )
    every_days: int = Field(
        default=7,
        ge=1,
        le=366,
        description="days from the end of one window to the end of the next",
        examples=[7],
    )
    reference_days: int = Field(
        default=365,
        ge=14,
        le=3660,
        description="newest days of training rows that make the champion's reference",
        examples=[365],
    )
    min_rows: int = Field(
        default=20, ge=2, description="fewest rows of a window that is judged", examples=[20]
    )
    min_effect: float = Field(
        default=0.5,
        gt=0.0,
        description="smallest effect size that matters: a shift of the mean in standard "
        "deviations of the reference, for categories Cohen's w",
        examples=[0.5],
    )
    min_weight: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        description="smallest share of a feature in the champion's importance; a feature below it "
        "never alarms by itself",
        examples=[0.05],
    )
    max_false_alarms: float = Field(
        default=0.5,
        gt=0.0,
        le=50.0,
        description="false alarms to be expected in a country and year when nothing changes",
        examples=[0.5],
    )
    alarm_after: int = Field(
        default=2,
        ge=1,
        le=50,
        description="windows, of the newest `of_windows`, that must deviate before there is an "
        "alarm; one alone is watched",
        examples=[2],
    )
    of_windows: int = Field(
        default=3, ge=1, le=50, description="newest windows that are looked at", examples=[3]
    )
    min_labels: int = Field(
        default=20,
        ge=2,
        description="fewest matured labels for which the realised error is judged",
        examples=[20],
    )
    label_days: int = Field(
        default=56,
        ge=1,
        le=3660,
        description="newest days in which labels became known, whose realised error is judged",
        examples=[56],
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1.0,
        description="of the intervals around realised and promised error",
        examples=[0.95],
    )
    tolerance: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        description="by which share the realised error may be above the promise, beyond the "
        "intervals (for auc: by how much below)",
        examples=[0.05],
    )
    incident_share: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="share of the judged countries whose alarms in one window are one incident",
        examples=[0.5],
    )
    incident_countries: int = Field(
        default=3,
        ge=2,
        description="fewest countries whose alarms are an incident",
        examples=[3],
    )

    @model_validator(mode="after")
    def _windows(self) -> MonitoringSpec:
        if self.alarm_after > self.of_windows:
            text = f"alarm_after {self.alarm_after} is more than of_windows {self.of_windows}"
            refuse("MonitoringSpec", [rule_broken(text, "alarm_after")])
        if self.window_days * 3 > self.reference_days:
            text = (
                f"reference_days {self.reference_days} are fewer than three windows of "
                f"{self.window_days} days, which do not tell how much windows differ by chance"
            )
            refuse("MonitoringSpec", [rule_broken(text, "reference_days")])
        return self


class RetrainingSpec(Strict):
    """When a country is trained again, and how often at most."""

    on_error: bool = Field(
        default=True,
        description="when the realised error is significantly worse than promised",
        examples=[True],
    )
    on_drift: bool = Field(
        default=True, description="when features that matter have changed", examples=[True]
    )
    new_labels: int | None = Field(
        default=None,
        ge=1,
        description="when so many labels have matured since the champion's training; default: "
        "never",
        examples=[90],
    )
    max_age_days: int | None = Field(
        default=112,
        ge=1,
        description="so many days apart are the dates at which champions are trained again, all "
        "countries together; one that is younger than half of it waits for the next date; null: "
        "never",
        examples=[60],
    )
    pooled_age_days: int = Field(
        default=28,
        ge=1,
        description="pooled models that are older, in days, are trained before a country is",
        examples=[28],
    )
    cooldown_days: float = Field(
        default=7.0,
        ge=0.0,
        description="days after a training before the next one in the same country; an alarm waits "
        "up to four times as long where trainings followed each other, up to sixteen times where "
        "they brought nothing; trainings follow the one for a change at growing multiples of it",
        examples=[7],
    )
    at_once: int = Field(
        default=4, ge=1, description="trainings of the product that run at once", examples=[4]
    )
    per_day: int = Field(
        default=50, ge=1, description="trainings of the product in 24 hours", examples=[50]
    )
    give_up_after: int = Field(
        default=6,
        ge=1,
        description="candidates in a row that were not promoted, after which a person is asked; "
        "until then each waits the longer for the next",
        examples=[4],
    )
    rollback: bool = Field(
        default=True,
        description="whether a champion that is significantly worse than the one before it, on the "
        "same rows, is rolled back without asking",
        examples=[True],
    )
    withdraw: bool = added_later(
        True,
        description="whether a champion that is significantly worse than the baseline, on the same "
        "rows, is taken out of use without asking: the pooled model serves in its place where "
        "nothing speaks against it, else the baseline",
        examples=[True],
    )

    clock: Literal["wall", "data"] = added_later(
        "wall",
        description="by which clock cool-down, age of pooled models and budget run: wall: the time "
        "of day; data: up to when the records of two countries reach, so that history can be "
        "delivered faster than it happened. Of the whole product; failed runs are always tried "
        "again by the time of day",
        examples=["data"],
    )

    @property
    def cooldown(self) -> dt.timedelta:
        """After a training, before the next one in the same country."""
        return dt.timedelta(days=self.cooldown_days)


class SinkSpec(Strict):
    """Where alerts go."""

    kind: Literal["log", "webhook", "slack", "email"] = Field(
        description="log: the daemon's log; webhook: a JSON document by POST; slack: a message to "
        "a Slack-compatible webhook; email: a mail by SMTP",
        examples=["slack"],
    )
    url_env: Variable | None = Field(
        default=None,
        description="environment variable with the address: of the webhook, or "
        "smtp://user:password@host:port (smtps:// for TLS from the start)",
        examples=["POWER_SLACK_URL"],
    )
    to: list[Text] = Field(
        default=[],
        description="for email: who gets it; default: the owners that are addresses",
        examples=[["desk@example.org"]],
    )
    sender: Text = Field(
        default="mlops-assets@localhost", description="for email: from", examples=["ml@example.org"]
    )

    @model_validator(mode="after")
    def _address(self) -> SinkSpec:
        if (self.kind == "log") == (self.url_env is not None):
            text = "`url_env` is needed for every kind but log, and only there"
            refuse("SinkSpec", [rule_broken(text, "url_env")])
        return self


class AlertsSpec(Strict):
    """Who is told what."""

    sinks: list[SinkSpec] = Field(
        default=[SinkSpec(kind="log")],
        description="where alerts go, each once per incident; an empty list: nowhere",
        examples=[[{"kind": "slack", "url_env": "POWER_SLACK_URL"}]],
    )
