"""The Kubernetes profile as the cluster would get it: what the chart makes of the values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "kubernetes"
DOCKERFILE = PROJECT_ROOT / "deploy" / "Dockerfile"
GUIDE = PROJECT_ROOT / "docs" / "guide" / "kubernetes.md"
NAMESPACE = "mlops"
RELEASE = "dagster"


@dataclass(frozen=True)
class Server:
    """One of the chart's deployments.

    Attributes:
        name: of the part.
        values: its section.
    """

    name: str
    values: Mapping[str, Any]


def values() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))


def manifests() -> list[dict[str, Any]]:
    files = sorted(FOLDER.glob("*.yaml"))
    return [
        document
        for file in files
        if file.name != "values.yaml"
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in manifests() if each["kind"] == kind]
    return found


def servers() -> list[Server]:
    chart = values()
    (code,) = chart["dagster-user-deployments"]["deployments"]
    return [
        Server("webserver", chart["dagsterWebserver"]),
        Server("daemon", chart["dagsterDaemon"]),
        Server("code server", code),
    ]


def deployment(server: Server) -> dict[str, Any]:
    """A deployment with every fragment that the chart hands on as it is."""
    section = server.values
    container = {
        "name": "dagster",
        "image": image_name(section["image"]),
        "imagePullPolicy": section["image"]["pullPolicy"],
        "envFrom": [
            *({"configMapRef": each} for each in section.get("envConfigMaps", [])),
            *({"secretRef": each} for each in section.get("envSecrets", [])),
        ],
        "resources": section["resources"],
        "securityContext": section["securityContext"],
    }
    if "readinessProbe" in section:
        container["readinessProbe"] = section["readinessProbe"]
    labels = {"component": server.name.replace(" ", "-")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": labels["component"], "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "securityContext": section["podSecurityContext"],
                    "containers": [container],
                },
            },
        },
    }


def image_name(image: Mapping[str, Any]) -> str:
    return f"{image['repository']}:{image['tag']}"


def launcher_config(chart: Mapping[str, Any]) -> dict[str, Any]:
    """`config` of the run launcher in dagster.yaml."""
    section = chart["runLauncher"]["config"]["k8sRunLauncher"]
    handed_on = ("imagePullPolicy", "loadInclusterConfig", "resources", "securityContext")
    raw = {snake(key): value for key, value in section["runK8sConfig"].items()}
    return {
        **{snake(key): section[key] for key in handed_on},
        "env_config_maps": [each["name"] for each in section["envConfigMaps"]],
        "env_secrets": [each["name"] for each in section["envSecrets"]],
        **({"fail_pod_on_run_failure": True} if section["failPodOnRunFailure"] else {}),
        "run_k8s_config": raw,
        "job_namespace": NAMESPACE,
        "service_account_name": RELEASE,
        "instance_config_map": f"{RELEASE}-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "postgres_password_secret": chart["global"]["postgresqlSecretName"],
    }


def dagster_yaml(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The dagster.yaml of webserver, daemon and runs."""
    daemon = chart["dagsterDaemon"]
    storages = {
        "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage"),
        "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
    }
    return {
        **{
            key: {"module": module, "class": name, "config": _postgres(chart["postgresql"])}
            for key, (module, name) in storages.items()
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": chart["runLauncher"]["type"],
            "config": launcher_config(chart),
        },
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": chart["computeLogManager"]["type"],
        },
        "run_monitoring": snakes(daemon["runMonitoring"]),
        "run_retries": snakes(daemon["runRetries"]),
        "telemetry": chart["telemetry"],
        **chart["additionalInstanceConfig"],
    }


def _postgres(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "postgres_db": {
            "username": section["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": section["postgresqlHost"],
            "db_name": section["postgresqlDatabase"],
            "port": section["service"]["port"],
            "params": {},
            "scheme": section["postgresqlScheme"],
        }
    }


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)


def snakes(section: Mapping[str, Any]) -> dict[str, Any]:
    return {snake(key): value for key, value in section.items()}


def over(chart: Any, ours: Any) -> Any:
    """Values laid over those of the chart, the way Helm does it."""
    if not (isinstance(chart, Mapping) and isinstance(ours, Mapping)):
        return ours
    merged = {**chart, **{key: over(chart.get(key), value) for key, value in ours.items()}}
    return {key: value for key, value in merged.items() if value is not None or key in chart}


def mappings(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a document."""
    if isinstance(tree, Mapping):
        yield tree
        for value in tree.values():
            yield from mappings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from mappings(value)


def files() -> list[Path]:
    found = [*FOLDER.rglob("*"), *DOCKERFILE.parent.glob("Dockerfile*")]
    return sorted(path for path in found if path.is_file())
