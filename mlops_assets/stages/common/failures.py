"""What a failed run says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg


def failure_text(event: dg.DagsterEvent, *, plain: bool = False) -> str:
    """Why a step failed: a failure raised on purpose in its own words; "" if nothing is known.

    Args:
        event: of a failed step.
        plain: an error's text without the class path in front.
    """
    data = event.event_specific_data and event.step_failure_data
    if not data:
        return ""
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    if data.error is None:
        return ""
    text = (data.error.cause or data.error).message.strip()
    return _plain(text) if plain else text


def _plain(message: str) -> str:
    head, separator, rest = message.partition(": ")
    is_class = separator and "." in head and " " not in head
    return rest.strip() if is_class else message
