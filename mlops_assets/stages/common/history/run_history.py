"""What Dagster's history says of runs, read so that nothing it can hold stops a reader.

It holds what happened, not what was meant to: checks that were planned and never evaluated (every
stopped run leaves some), runs that were removed, errors without a word. Whoever looks at checks or
errors of runs asks here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.stages.common.failures import failure_text

_PAGE = 50
_PAGES = 10
_NO_WORD = "the run failed without saying why"
_ENDS = frozenset({dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE})


@dataclass(frozen=True)
class OfPartition:
    """What Dagster's history of a check is narrowed by; its own class for it is not exported.

    Attributes:
        key: of the partition.
    """

    key: str


@dataclass(frozen=True)
class EvaluatedCheck:
    """A check that was really evaluated in a run.

    Attributes:
        run_id: of that run.
        country: it was evaluated for; "" for all or none.
        result: what came out.
    """

    run_id: str
    country: str
    result: dg.AssetCheckEvaluation

    @property
    def stops(self) -> bool:
        """Whether it failed and is no mere warning."""
        return not self.result.passed and self.result.severity == dg.AssetCheckSeverity.ERROR


def evaluated_checks(
    instance: dg.DagsterInstance, run_id: str, country: str = ""
) -> list[EvaluatedCheck]:
    """The checks that were evaluated in a run, in their order; none of a run that was removed.

    Args:
        instance: whose history.
        run_id: of the run.
        country: of checks that do not say theirs.
    """
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    events = (record.event_log_entry.dagster_event for record in records)
    results = (event.event_specific_data for event in events if event is not None)
    return [
        EvaluatedCheck(run_id, each.partition or country, each)
        for each in results
        if isinstance(each, dg.AssetCheckEvaluation)
    ]


def past_results(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, country: str
) -> Iterator[EvaluatedCheck]:
    """What a check came to in its newest runs, newest first, without those that only planned it.

    Args:
        instance: whose history.
        key: of the check.
        country: whose; "" for every one.
    """
    storage: Any = instance.event_log_storage
    narrowed, cursor = OfPartition(country) if country else None, None
    for _ in range(_PAGES):
        page = storage.get_asset_check_execution_history(
            key, limit=_PAGE, cursor=cursor, partition_filter=narrowed
        )
        for each in page:
            # Of a check that was planned and never evaluated this is the plan.
            if isinstance(each.evaluation, dg.AssetCheckEvaluation):
                yield EvaluatedCheck(each.run_id, each.partition or "", each.evaluation)
        if len(page) < _PAGE:
            return
        cursor = page[-1].id


def error_of(instance: dg.DagsterInstance, run_id: str, longest: int) -> str:
    """The first error of a failed run, in its first line.

    Args:
        instance: whose history.
        run_id: of the run.
        longest: characters of a line that are kept; what is cut is said.
    """
    for each in instance.get_records_for_run(run_id, of_type=set(_ENDS)).records:
        event = each.event_log_entry.dagster_event
        if event is None:
            continue
        told = failure_text(event) if event.is_step_failure else event.message
        if line := first_line(told, longest):
            return line
    return _NO_WORD


def first_line(text: str | None, longest: int) -> str:
    """The first line that says something; "" where none does.

    Args:
        text: of any number of lines.
        longest: characters that are kept; how many are left out is said.
    """
    line = next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
    left = len(line) - longest
    return line if left <= 0 else f"{line[:longest]} ... ({left:,} more characters in the run)"
