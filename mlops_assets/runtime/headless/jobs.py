"""One job without partitions, executed in this process as a Dagster run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.settings import Settings

_REPOSITORY_TAG = ".dagster/repository"
_REPOSITORY = "__repository__@mlops_assets"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        run_id: of its Dagster run.
        problem: why it failed; "" when it did not.
        shown: metadata of its op's output, as plain values; empty when it failed.
    """

    run_id: str
    problem: str
    shown: Mapping[str, Any]


def run_job(
    settings: Settings,
    product: str,
    kind: str,
    config: Mapping[str, Any],
    *,
    tags: Mapping[str, str],
) -> JobOutcome:
    """Run `<product>_<kind>`, a job of one op, on the instance of these settings.

    Args:
        settings: where everything is.
        product: name of the product.
        kind: which of its jobs.
        config: of the op.
        tags: of the run, beside the platform's own.
    """
    import dagster as dg

    from mlops_assets.definitions import defs
    from mlops_assets.stages.promotion.jobs import op_name

    job = defs().resolve_job_def(f"{product}_{kind}")
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        result = job.execute_in_process(
            instance=instance,
            run_config={"ops": {op_name(product, kind): {"config": dict(config)}}, **_QUIET},
            tags={_REPOSITORY_TAG: _REPOSITORY, "product": product, **tags},
            raise_on_error=False,
        )
    failures = [each for each in result.all_events if each.is_step_failure]
    if result.success:
        return JobOutcome(result.run_id, "", _shown(result))
    return JobOutcome(result.run_id, _describe_failures(failures), {})


def _shown(result: Any) -> dict[str, Any]:
    outputs = [each for each in result.all_events if each.event_type_value == "STEP_OUTPUT"]
    return {
        name: value.value
        for event in outputs
        for name, value in event.step_output_data.metadata.items()
    }


def _describe_failures(failures: list[Any]) -> str:
    """What the first failed step says of itself."""
    from mlops_assets.stages.common.failures import failure_text

    told = filter(None, map(failure_text, failures))
    return next(told, "the run failed; its page in the UI has the cause")
