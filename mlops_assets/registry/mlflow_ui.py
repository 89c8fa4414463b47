"""MLflow's page as one process, with the options of `mlflow server`.

MLflow's own command stays in memory for as long as the server it starts runs, which is as much
again for nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from mlflow import cli
from mlflow import server as page


def _become(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """This process is the server from here on."""
    os.execvpe(command[0], list(command), {**os.environ, **extra_env})


if __name__ == "__main__":
    setattr(page, "_exec_cmd", _become)  # noqa: B010  (it is not exported)
    cli.cli(["server", "--workers", "1", *sys.argv[1:]])
