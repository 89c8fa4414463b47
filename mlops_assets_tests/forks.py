"""Processes of their own for tests, that need not import everything anew."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def forks() -> ForkServerContext:
    """Of one process that has imported it all, and has no thread; for the whole test session."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlops_assets_tests.imported"])
    return context
