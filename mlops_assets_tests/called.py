"""Calls of `mlops-assets` in processes of their own that need not import everything anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from mlops_assets_tests.forks import forks


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
    said = [folder / f".said-{os.getpid()}.{name}" for name in ("out", "err")]
    process = forks().Process(
        target=_called, args=(program, arguments, dict(environment), folder, said)
    )
    process.start()
    process.join(seconds)
    try:
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{program} {' '.join(arguments)}: {seconds} s; {said[1]}")
        output, errors = (file.read_text() for file in said)
        return process.exitcode, output, errors
    finally:
        process.close()
        for file in said:
            file.unlink(missing_ok=True)


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
