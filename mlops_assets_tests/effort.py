"""How much of what could go on for ever a test run tries."""

from __future__ import annotations

import os

WHOLE = os.environ.get("MLOPS_ASSETS_TEST_EFFORT") == "whole"
_PART = 4


def examples(number: int) -> int:
    """Inputs for hypothesis to try: so many in `make nightly`, a quarter of them otherwise."""
    return number if WHOLE else max(1, number // _PART)
