"""A removal in a process of its own that is killed (module level: forkserver imports it)."""

from __future__ import annotations

import os
import signal

from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.upkeep.retention import RetentionPlan, apply_retention
from mlops_assets_tests.stages.history import History


def remove_some_and_die(history: History, planned: RetentionPlan, survivors: int) -> None:
    """Execute a plan, killed when that many of its files are still there."""
    really, left = os.unlink, len(planned.removable)

    def deadly(path: str) -> None:
        nonlocal left
        if "/.tmp-" not in path:
            if left == survivors:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        really(path)

    os.unlink = deadly
    apply_retention(planned, ProductContext(history.product, history.store, history.registry))
