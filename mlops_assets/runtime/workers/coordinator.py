"""Every run gets a size before it waits: its queue, its place in it, and what it may use.

A backfill launched in the UI carries no tags of ours, so this is where all runs come by, whoever
asked for them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mlops_assets.runtime.dagster_compat import QueuedRunCoordinator
from mlops_assets.runtime.workers.celery_compat import QUEUE_TAG
from mlops_assets.runtime.workers.kubernetes import run_config_tags
from mlops_assets.runtime.workers.sizes import SIZE_TAG, Sizes
from mlops_assets.settings import load_settings

if TYPE_CHECKING:
    import dagster as dg

_PRIORITY_TAG = "dagster/priority"
_ON_KUBERNETES = "K8sRunLauncher"


class SizedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, in which the longest runs come first and never take every worker.

    The longest first: a large country that begins last would be waited for by all. How many large
    ones go at once is limited by `tag_concurrency_limits` on the size tag.
    """

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self._instance, load_settings().defs)

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Tag a run with its size, then queue it. Tags that are there already stay."""
        run = context.dagster_run
        if tags := {k: v for k, v in self._tags(run).items() if k not in run.tags}:
            self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)

    def _tags(self, run: dg.DagsterRun) -> dict[str, str]:
        found = self._sizes.of(run)
        on_kubernetes = type(self._instance.run_launcher).__name__ == _ON_KUBERNETES
        return {
            SIZE_TAG: found.size,
            QUEUE_TAG: found.size,
            _PRIORITY_TAG: str(found.seconds),
            **(run_config_tags(found.given) if on_kubernetes else {}),
        }
