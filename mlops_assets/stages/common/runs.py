"""Tags of runs: what each says, who asked for it, and how the same request never runs twice.

What was asked for is in the runs. Whoever asks looks there first; two that ask in the same moment
are told apart when their runs start.
"""

from collections.abc import Mapping

import dagster as dg

TRIGGER = "mlops_assets/trigger"
"""Tag of a run: why it was started, in words."""
ORDER = "mlops_assets/order"
"""Tag of a run that the command line asked for."""
REQUEST = "mlops_assets/request"
"""Tag of a run: what identifies the request for ever."""
ASKED_BY = "mlops_assets/asked_by"
"""Tag of a run that no person asked for: who did."""
CAUSE = "mlops_assets/cause"
"""Tag of a run: why a country is trained again, in a word, or `rollback`, `withdraw`, or
`pooled`."""
COUNTRY = "mlops_assets/country"
AT = "mlops_assets/at"
"""Tag of a run that was asked for: when, by the clock of `retraining.clock`; none by the wall's."""
DUPLICATE = "mlops_assets/duplicate_of"
"""Tag of a run that left its work to an older run of the same request: that run's id."""
ASKED = "mlops_assets/asked_"
"""Beginning of the tags with the key of each thing that a run answers, by cause."""
EVIDENCE_TAG = "mlops_assets/evidence_"
"""Beginning of the tags with the names of what a request was decided on."""
SENSOR = "retraining sensor"
SCHEDULE = "periodic schedule"
ASKERS = (SENSOR, SCHEDULE)
"""Who asks; the triggers of what they ask for begin so."""
PERSON = SENSOR
"""Who asks for a rollback or withdrawal that no person asked for."""
ROLLBACK = "rollback"
WITHDRAW = "withdraw"
"""Job that takes a champion out of use that is worse than the baseline, and its cause."""
WAYS_BACK = (ROLLBACK, WITHDRAW)
POOLED_JOB = "pooled"
"""Job of the pooled models, and the cause of the runs of it that the sensor asks for."""
DATA_VERSION = "dagster/data_version"
"""Tag of a materialization: the version of what was made."""
RUN_KEY = "dagster/run_key"
PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
_TOLD_BY = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
}


def trigger_of(tags: Mapping[str, str]) -> str:
    """Why a run was started, in words.

    Args:
        tags: of the run. Its own word (`mlops_assets/trigger`) goes first; else what Dagster tells
            of it.
    """
    if told := tags.get(TRIGGER):
        return told
    for tag, name in _TOLD_BY.items():
        if tag in tags:
            return f"{name} {tags[tag]}"
    return "the command line" if ORDER in tags else "by hand"


def country_of(tags: Mapping[str, str]) -> str:
    """The country a run is about; "" for none or many."""
    return tags.get(PARTITION) or tags.get(COUNTRY, "")


def leave_to_the_older(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> None:
    """End a run whose request an older run has; a run that nobody requested goes on.

    Raises:
        dg.Failure: there is an older one, whatever became of it: another attempt is another
            request. A run that a person started again from this one goes on.
    """
    request = context.run.tags.get(REQUEST)
    if request is None or context.run.parent_run_id is not None:
        return
    records = context.instance.get_run_records(dg.RunsFilter(tags={REQUEST: request}))
    ids = {record.storage_id: record.dagster_run.run_id for record in records}
    older = ids[min(ids)] if ids else context.run.run_id  # removed while it goes on: nobody has it
    if older != context.run.run_id:
        context.instance.add_run_tags(context.run.run_id, {DUPLICATE: older})
        raise dg.Failure(
            f"Run {older} was asked for the same before: {request}. This run made nothing; there "
            "is nothing to do.",
            allow_retries=False,
        )
