"""CPU time of the parts of a script, each without the parts inside it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """CPU seconds of this process by part; what is in no part is `other`."""

    def __init__(self) -> None:
        self._parts = ["other"]
        self._since = 0.0  # of the process: what was imported before counts
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time in the block is of this part, but for the parts within it."""
        self._note()
        self._parts.append(name)
        try:
            yield
        finally:
            self._note()
            self._parts.pop()

    def read(self) -> dict[str, float]:
        """CPU seconds by part until now."""
        self._note()
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}

    def _note(self) -> None:
        now = time.process_time()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now
