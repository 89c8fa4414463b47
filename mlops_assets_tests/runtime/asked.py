"""What Dagster's UI asks of a home, answered from the code and YAML as they are now."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.cli import execute_query


def main() -> None:
    """Query, its variables as JSON, and the file for the answer are the arguments.

    The code location is loaded here: `dagster-graphql` starts a server of it, and both import
    everything.
    """
    query, variables, file = sys.argv[1:]
    target = LoadableTargetOrigin(module_name="mlops_assets.definitions")
    origin = InProcessCodeLocationOrigin(target, location_name="mlops_assets")
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace,
    ):
        answer = execute_query(workspace, query, json.loads(variables))
    Path(file).write_text(json.dumps(answer))
