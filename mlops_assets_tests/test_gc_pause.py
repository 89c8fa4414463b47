from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mlops_assets.gc_pause import gc_paused


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_after_the_block_if_it_was_before(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled() is enabled


def test_garbage_is_collected_again_after_an_import_that_fails() -> None:
    gc.enable()
    with pytest.raises(ImportError), gc_paused():
        raise ImportError("no such library")
    assert gc.isenabled()
