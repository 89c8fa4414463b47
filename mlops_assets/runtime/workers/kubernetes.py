"""What a run asks of Kubernetes, by the size class of its country."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_assets.spec.resources import SizeClass

RUN_CONFIG_TAG = "dagster-k8s/config"
"""Tag of a run that `K8sRunLauncher` merges into the job it makes for it."""
_MILLICORES = 1000
_MEBIBYTES = 1024


def run_config_tags(size: SizeClass) -> dict[str, str]:
    """Tags of a run whose pod gets what its size class says.

    Memory is request and limit alike: it cannot be taken back, so a run that needs more than it
    said ends itself and not its neighbours on the node. CPU is a request without a limit: it is
    shared out by the requests when it is short, and a limit would only leave idle cores idle.

    Args:
        size: CPU in cores and memory in GiB.
    """
    memory = f"{math.ceil(size.memory_gb * _MEBIBYTES)}Mi"
    cpu = f"{math.ceil(round(size.cpu * _MILLICORES, 3))}m"
    resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}
    return {RUN_CONFIG_TAG: json.dumps({"container_config": {"resources": resources}})}
