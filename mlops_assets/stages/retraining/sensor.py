"""The retraining sensor and the periodic schedule: one plan, one budget, nothing twice.

Neither keeps a cursor. What was asked for is in the runs, what became of it is in the decisions: a
restart, a repeated tick or a deleted cursor neither loses a request nor makes it twice.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import dagster as dg

from mlops_assets.ml.retraining.plan import ACTION_KINDS, Action, RetrainingPlan
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.stages.common.base import AssetJob, Storage, asset_key
from mlops_assets.stages.common.runs import (
    PERSON,
    POOLED_JOB,
    RUN_KEY,
    SCHEDULE,
    SENSOR,
    TRIGGER,
    WAYS_BACK,
    WITHDRAW,
)
from mlops_assets.stages.promotion.jobs import op_name
from mlops_assets.stages.retraining.requests import cause_of_key, named_key, tags_of, tags_of_pooled
from mlops_assets.stages.retraining.state import RetrainingState, last_due, read_state

_INTERVAL_SECONDS = 10
_FOLLOW_UP = "*/10 * * * *"
_EACH_SHOWN = 10
_TRAINING = ("model", "champion")
"""What a training makes of a country; its features are there already."""
_SERVING = ("predictions", "performance", "drift")
_IN_WORDS = {
    "retrain": "training asked for",
    "rollback": "rollback asked for",
    "withdraw": "withdrawal asked for",
    "ask": "a person is asked",
    "hold": "held",
    "wait": "waiting",
    "going_on": "going on",
    "nothing": "nothing to do",
}
_SENSOR = (
    "Asks for the training of countries whose realised error is worse than promised, whose data "
    "have drifted, or that have many new labels, an old model or none, and again as "
    "what changed is known better; for a rollback where the model "
    "before was significantly better, for a withdrawal where the baseline is. Within the budget of "
    "the YAML (`retraining`), those with most to lose first, and pooled models that are old before "
    "them; an incident of most countries holds it. Each tick says what is done in every country, "
    "or why not. Start it with the switch on this page."
)
_SCHEDULE = (
    "Every country is due for training at the times of `retrain_cron`, within the same budget as "
    "the retraining sensor. In between it asks for those that had to wait. Start it with the "
    "switch on this page."
)


def retraining_sensor(
    product: Product,
    jobs: Sequence[AssetJob | dg.JobDefinition],
) -> dg.SensorDefinition:
    """Asks for trainings and rollbacks of just the countries that need one.

    Predictions follow in a run of their own once the champion has changed: a candidate that a
    gate stops leaves predictions and monitoring as they were.

    Args:
        product: which.
        jobs: its `train`, `predict`, `rollback` and `withdraw` jobs, and `pooled` where it has one.
    """

    @dg.sensor(
        name=f"{product.name}_retraining",
        jobs=jobs,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=_SENSOR,
    )
    def retraining(
        context: dg.SensorEvaluationContext, storage: Storage, mlflow: MlflowRegistry
    ) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        view = read_state(storage.product(product, mlflow.registry()), context.instance, now)
        plan = view.plan(product.spec)
        follow = _unasked(_follow_up(product, view), context.instance)
        text = f"{describe_plan(plan)}{_describe_requests(follow)}"
        actions = [each for each in plan.actions if each.kind in ("retrain", *WAYS_BACK)]
        asked = [
            *_pooled_request(product, plan, view.dated),
            *(run_request(product, each, SENSOR, view.dated) for each in actions),
            *follow,
        ]
        if not asked:
            return dg.SkipReason(text)
        context.log.info(text)
        # A tick that asks shows no reason of its own: the cursor does, and is never read.
        cursor = f"{now:%Y-%m-%d %H:%M:%S} UTC\n{text}"
        return dg.SensorResult(run_requests=asked, cursor=cursor)

    return retraining


def _pooled_request(
    product: Product, plan: RetrainingPlan, dated: Mapping[str, str]
) -> list[dg.RunRequest]:
    """The run that trains the pooled models, where countries wait for it and none goes on."""
    if plan.pooled is None or not plan.pooled.key:
        return []
    return [
        dg.RunRequest(
            run_key=named_key(product, plan.pooled.key),
            job_name=f"{product.name}_{POOLED_JOB}",
            tags={**tags_of_pooled(product, plan.pooled, SENSOR), **dated},
        )
    ]


def _follow_up(product: Product, view: RetrainingState) -> list[dg.RunRequest]:
    """Predictions, and what watches them, of countries whose champion or features changed."""
    return [
        dg.RunRequest(
            run_key=f"{product.name} {country}: predictions of {made_of}",
            job_name=f"{product.name}_predict",
            partition_key=country,
            asset_selection=[asset_key(product, name) for name in _SERVING],
            tags={"product": product.name, TRIGGER: f"{SENSOR}: champion or features changed"},
        )
        for country, made_of in view.unserved.items()
    ]


def _unasked(
    requests: Sequence[dg.RunRequest], instance: dg.DagsterInstance
) -> list[dg.RunRequest]:
    """Those that no run has, whatever became of it."""
    keys = [each.run_key for each in requests if each.run_key]
    runs = instance.get_runs(dg.RunsFilter(tags={RUN_KEY: keys})) if keys else []
    known = {run.tags[RUN_KEY] for run in runs}
    return [each for each in requests if each.run_key not in known]


def _describe_requests(follow: Sequence[dg.RunRequest]) -> str:
    if not follow:
        return ""
    countries = ", ".join(str(each.partition_key) for each in follow)
    return f"\npredictions asked for, {len(follow)} ({countries}): champion or features changed."


def retraining_schedule(product: Product, cron: str) -> dg.ScheduleDefinition:
    """Periodic retraining of every country, as far as the budget goes at each tick.

    Args:
        product: which.
        cron: when every country is due (UTC).
    """

    @dg.schedule(
        name=f"{product.name}_periodic",
        job_name=f"{product.name}_train",
        cron_schedule=[cron, _FOLLOW_UP],
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=_SCHEDULE,
    )
    def periodic(
        context: dg.ScheduleEvaluationContext, storage: Storage, mlflow: MlflowRegistry
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        ticks = context.scheduled_execution_time
        due = last_due(cron, ticks) if _is_time_of(cron, ticks) else None
        view = read_state(storage.product(product, mlflow.registry()), context.instance, now, due)
        countries = [each.country for each in view.country_states if each.due is not None]
        if not countries:
            return dg.SkipReason(f"no country is due; the next are by `{cron}` (UTC)")
        plan = without_asking(view).plan(product.spec, only=countries)
        mine = [each for each in plan.actions if each.country in countries]
        asked = [each for each in mine if each.kind == "retrain"]
        text = describe_plan(RetrainingPlan(tuple(mine), plan.incident))
        context.log.info(text)
        if not asked:
            return dg.SkipReason(text)
        return [run_request(product, each, SCHEDULE, view.dated) for each in asked]

    return periodic


def run_request(
    product: Product, action: Action, who: str, dated: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """The run of a `retrain`, `rollback` or `withdraw` action.

    Args:
        product: of the country.
        action: what is asked for.
        who: asks, such as `retraining sensor`.
        dated: tags with the time it is asked for; none where the time of day says it.
    """
    key = named_key(product, action.key)
    tags = {**tags_of(product, action, who), **(dated or {})}
    if action.kind in WAYS_BACK:
        return dg.RunRequest(
            run_key=key,
            job_name=f"{product.name}_{action.kind}",
            run_config=_config_of_way_back(product, action),
            tags=tags,
        )
    causes = {cause_of_key(action.country, each) for each in action.covers}
    # Due by the schedule: nobody has looked for new data, so that everything is made again.
    whole = "schedule" in causes
    return dg.RunRequest(
        run_key=key,
        job_name=f"{product.name}_train",
        partition_key=action.country,
        asset_selection=None if whole else [asset_key(product, name) for name in _TRAINING],
        tags=tags,
    )


def without_asking(view: RetrainingState) -> RetrainingState:
    """A look from which nobody asks for pooled models; what is going on is waited for.

    The schedule of the pooled models is due at the same time as that of the countries.
    """
    waits = view.pooled is not None and view.pooled.going_on
    return view if waits else replace(view, pooled=None)


def describe_plan(plan: RetrainingPlan) -> str:
    """What is done in every country or why not, as text: countries that are alike together."""
    lines = []
    if plan.incident is not None:
        does = "automatic training holds" if plan.incident.holds else "training goes on"
        lines.append(f"Incident ({plan.incident.kind}; {does}): {plan.incident.reason}.")
    if plan.pooled is not None and plan.pooled.key:
        lines.append(f"pooled models asked for: {plan.pooled.reason}.")
    for kind in ACTION_KINDS:
        found = [each for each in plan.actions if each.kind == kind]
        lines += [_line(_IN_WORDS[kind], group, alike) for group, alike in _groups(found)]
    return "\n".join(lines)


def _groups(actions: Iterable[Action]) -> list[tuple[str, list[Action]]]:
    """By the reason without numbers, the largest first."""
    found: dict[str, list[Action]] = {}
    for action in actions:
        found.setdefault(action.group, []).append(action)
    return sorted(found.items(), key=lambda group: -len(group[1]))


def _line(what: str, group: str, actions: Sequence[Action]) -> str:
    """Each with its numbers where a person acts or something is asked for, else the group."""
    countries = ", ".join(action.country for action in actions)
    if actions[0].kind in ("going_on", "nothing", "hold") or len(actions) > _EACH_SHOWN:
        return f"{what}, {len(actions)} ({countries}): {group}."
    each = "; ".join(f"{action.country}: {_cause(action)}{action.reason}" for action in actions)
    return f"{what}, {len(actions)}: {each}."


def _cause(action: Action) -> str:
    return f"{action.cause}: " if action.cause else ""


def _config_of_way_back(product: Product, action: Action) -> dict[str, object]:
    version = action.evidence.get("champion", "")
    config: dict[str, object] = {
        "countries": [action.country],
        "expected": {action.country: version},
        "person": PERSON,
        "reason": action.reason,
    }
    if action.kind == WITHDRAW:
        config = {"country": action.country, "version": version, "reason": action.reason}
    return {"ops": {op_name(product.name, action.kind): {"config": config}}}


def _is_time_of(cron: str, moment: dt.datetime) -> bool:
    return last_due(cron, moment) == moment.astimezone(dt.UTC)
