"""Python's garbage collection, paused while a process loads what it needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Nothing is looked through for garbage in this block, in any thread.

    For imports: they leave next to none, and with thousands of modules there, to look through them
    all again and again is a quarter of the CPU time that they take.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
