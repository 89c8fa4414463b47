"""Calls of `mlops-assets` in processes of their own that need not import everything anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

from mlops_assets_tests.forks import forks

_NUMBERS = count()


@dataclass(frozen=True)
class Call:
    """A call that goes on beside this process, and the files of what it says."""

    process: ForkServerProcess
    said: tuple[Path, Path]

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def errors(self) -> str:
        """What it wrote to standard error until now."""
        return self.said[1].read_text() if self.said[1].exists() else ""

    def ended(self, seconds: float) -> tuple[int, str, str]:
        """Exit code, output and errors, once it has ended; it is killed if that takes longer."""
        self.process.join(seconds)
        try:
            if self.process.exitcode is None:
                self.process.kill()
                self.process.join()
                raise TimeoutError(f"{seconds} s: {self.errors}")
            output, errors = (file.read_text() for file in self.said)
            return self.process.exitcode, output, errors
        finally:
            self.process.close()
            for file in self.said:
                file.unlink(missing_ok=True)


def begin(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    program: str = "mlops_assets.cli",
) -> Call:
    """A call that was begun; the arguments are those of `call`."""
    number = next(_NUMBERS)
    out, err = (folder / f".said-{os.getpid()}-{number}.{name}" for name in ("out", "err"))
    process = forks().Process(
        target=_called, args=(program, arguments, dict(environment), folder, (out, err))
    )
    process.start()
    return Call(process, (out, err))


def call(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    seconds: float,
    program: str = "mlops_assets.cli",
) -> tuple[int, str, str]:
    """Exit code, output and errors of one call.

    Args:
        arguments: after the name of the program.
        environment: all of it.
        folder: it runs in, and its output is kept in for as long as it runs.
        seconds: it may take.
        program: the module whose `main` is called.
    """
    return begin(arguments, environment, folder, program).ended(seconds)


def _called(
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    said: Sequence[Path],
) -> NoReturn:
    for number, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["mlops-assets", *arguments]
    import_module(program).main()
    sys.exit(0)
