"""Telling people: what an alert holds, and the sinks it goes to."""

from mlops_assets.alerts.records import Alert, AlertKind
from mlops_assets.alerts.sinks import Sink, open_sink, sink_name

__all__ = ["Alert", "AlertKind", "Sink", "open_sink", "sink_name"]
