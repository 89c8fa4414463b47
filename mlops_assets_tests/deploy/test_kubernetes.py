# ruff: noqa: E402 -- what is imported may not be installed
"""The profile for a cluster: what Kubernetes, Dagster and MLflow would get is what they accept.

The client of Kubernetes, some 700 modules, is imported where it is used: every process of the tests
imports this file, and one runs it.

There is no cluster here. Manifests and the jobs of runs are held against the schemas of Kubernetes,
the instance against Dagster's own config types; with DAGSTER_CHART, a folder with the unpacked
chart, the values against the chart's schema.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import yaml

_NEEDED = ("dagster_k8s", "dagster_postgres", "kubernetes_validate")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
if _MISSING and os.environ.get("CI") != "true":
    pytest.skip(f"not installed: {', '.join(_MISSING)}", allow_module_level=True)

import kubernetes_validate
from dagster._config import validate_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.instance.config import dagster_instance_config
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from mlops_assets.runtime.workers.coordinator import SizedRunCoordinator
from mlops_assets.runtime.workers.kubernetes import RUN_CONFIG_TAG, run_config_tags
from mlops_assets.runtime.workers.sizes import SIZE_TAG
from mlops_assets.settings import PROJECT_ROOT, load_settings
from mlops_assets.spec.resources import SIZES, SizeClass
from mlops_assets_tests.deploy import profile

OLDEST, NEWEST = "1.30", "1.37"
EVERY_VERSION = pytest.mark.parametrize("version", [OLDEST, NEWEST])
EVERY_SERVER = pytest.mark.parametrize("server", profile.servers(), ids=lambda each: each.name)
IMAGE = "registry.example.org/mlops_assets:7"
RESOURCES = {
    (0.5, 1.0): ("500m", "1024Mi"),
    (1.0, 2.0): ("1000m", "2048Mi"),
    (4.0, 16.0): ("4000m", "16384Mi"),
    (0.1, 0.3): ("100m", "308Mi"),
}
EVERY_SIZE = pytest.mark.parametrize(("asked", "given"), RESOURCES.items(), ids=str)
LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""Name of a service (RFC 1035)."""


def keeps_the_schema(document: Mapping[str, Any], version: str = NEWEST) -> None:
    """Kubernetes would take the document; keys it does not know are refused."""
    kubernetes_validate.validate(dict(document), version, strict=True)


def accepted(config_type: Any, config: Any) -> Any:
    """The config with its defaults, as Dagster takes it."""
    result = validate_config(config_type, config)
    assert result.success, [error.message for error in result.errors or ()]
    return result.value


class Cluster:
    """Stands in for the API of Kubernetes: keeps the jobs it is asked for."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def create_namespaced_job(self, body: Any, namespace: str, **_: Any) -> None:
        import kubernetes.client

        job: Any = kubernetes.client.ApiClient().sanitize_for_serialization(body)
        self.jobs.append(job)
        assert namespace == profile.NAMESPACE


@pytest.fixture
def launch(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """Launches a run with these tags by the profile's launcher; gives the job it asks for."""
    from dagster_k8s import K8sRunLauncher

    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **_: None)
    cluster = Cluster()
    launcher = K8sRunLauncher(
        **accepted(K8sRunLauncher.config_type(), profile.launcher_config(profile.values())),
        k8s_client_batch_api=cluster,
        k8s_client_core_api=cluster,
    )
    launcher.register_instance(instance)

    def launched(tags: Mapping[str, str]) -> dict[str, Any]:
        run = DagsterRun(job_name="power_price_all", tags=tags, job_code_origin=_origin())
        instance.add_run(run)
        launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        return cluster.jobs[-1]

    return launched


def _origin() -> JobPythonOrigin:
    """What the code server says of itself: its image, and no config for runs."""
    return JobPythonOrigin(
        "power_price_all",
        RepositoryPythonOrigin(
            executable_path="python",
            code_pointer=ModuleCodePointer("mlops_assets.definitions", "defs"),
            container_image=IMAGE,
            entry_point=["dagster"],
            container_context={},
        ),
    )


def container(document: Mapping[str, Any]) -> dict[str, Any]:
    (only,) = pod(document)["containers"]
    return only


def pod(document: Mapping[str, Any]) -> dict[str, Any]:
    return document["spec"]["template"]["spec"]


# Schemas of Kubernetes


@EVERY_VERSION
def test_every_manifest_keeps_the_schema_of_kubernetes(version: str) -> None:
    assert {each["kind"] for each in profile.manifests()} == {"ConfigMap", "Deployment", "Service"}
    for document in profile.manifests():
        keeps_the_schema(document, version)


@EVERY_SERVER
@EVERY_VERSION
def test_what_the_values_put_into_a_pod_keeps_the_schema_of_kubernetes(
    server: profile.Server, version: str
) -> None:
    keeps_the_schema(profile.deployment(server), version)


@pytest.mark.parametrize("place", ["resources", "securityContext", "readinessProbe"])
def test_a_misspelt_field_of_a_container_is_found(place: str) -> None:
    document = copy.deepcopy(profile.manifest("Deployment"))
    container(document)[place]["requestz"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        keeps_the_schema(document)


# Runs


@EVERY_SIZE
def test_a_run_becomes_a_job_with_exactly_the_resources_of_its_size_class(
    asked: tuple[float, float],
    given: tuple[str, str],
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    job = launch(run_config_tags(SizeClass(cpu=asked[0], memory_gb=asked[1])))
    cpu, memory = given
    assert container(job)["resources"] == {
        "requests": {"cpu": cpu, "memory": memory},
        "limits": {"memory": memory},
    }
    keeps_the_schema(job, OLDEST)
    keeps_the_schema(job, NEWEST)


def test_a_run_without_a_size_class_has_the_resources_of_the_launcher(
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    section = profile.values()["runLauncher"]["config"]["k8sRunLauncher"]
    assert container(launch({}))["resources"] == section["resources"]


def test_a_run_has_the_image_and_the_environment_of_the_code_server(
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    run = container(launch({}))
    assert run["image"] == IMAGE
    assert run["args"][:3] == ["dagster", "api", "execute_run"]
    (code,) = [each for each in profile.servers() if each.name == "code server"]
    assert run["envFrom"] == container(profile.deployment(code))["envFrom"]
    assert run["envFrom"] == [
        {"configMapRef": {"name": "mlops-assets-config"}},
        {"secretRef": {"name": "mlops-assets-secret"}},
    ]
    password = {each["name"]: each for each in run["env"]}["DAGSTER_PG_PASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {
        "name": "mlops-assets-postgresql",
        "key": "postgresql-password",
    }


def test_a_job_is_tried_once_by_kubernetes_and_cleaned_up(
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    job = launch({})
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert pod(job)["restartPolicy"] == "Never"


def test_a_run_has_no_key_to_the_cluster_and_does_not_need_one(
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    assert pod(launch({}))["automountServiceAccountToken"] is False
    # Dagster would make the launcher, which logs in to the cluster, in every run.
    assert profile.values()["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"] == 0


def test_a_code_server_does_not_hand_its_resources_on_to_runs() -> None:
    (code,) = profile.values()["dagster-user-deployments"]["deployments"]
    assert code["includeConfigInLaunchedRuns"] == {"enabled": False}


@EVERY_SIZE
def test_dagster_k8s_reads_the_size_class_from_the_tags(
    asked: tuple[float, float], given: tuple[str, str]
) -> None:
    from dagster_k8s.job import UserDefinedDagsterK8sConfig, get_user_defined_k8s_config

    tags = run_config_tags(SizeClass(cpu=asked[0], memory_gb=asked[1]))
    assert set(tags) == {RUN_CONFIG_TAG}
    read = get_user_defined_k8s_config(tags)
    assert read == UserDefinedDagsterK8sConfig(
        container_config=json.loads(tags[RUN_CONFIG_TAG])["container_config"]
    )
    cpu, memory = given
    resources = read.container_config["resources"]
    assert resources["limits"] == {"memory": memory}
    assert resources["requests"] == {"cpu": cpu, "memory": memory}


# The instance


def test_dagster_takes_the_instance_that_the_values_describe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump(profile.dagster_yaml(profile.values())), encoding="utf-8"
    )
    config, _ = dagster_instance_config(str(tmp_path))
    configurable = {key: value for key, value in config.items() if "module" in (value or ())}
    assert len(configurable) == 6
    for section in configurable.values():
        found = getattr(importlib.import_module(section["module"]), section["class"])
        accepted(found.config_type(), section.get("config", {}))


def test_the_run_launcher_refuses_a_key_it_does_not_know() -> None:
    from dagster_k8s import K8sRunLauncher

    config = profile.launcher_config(profile.values())
    assert validate_config(K8sRunLauncher.config_type(), config).success
    assert not validate_config(K8sRunLauncher.config_type(), {**config, "memory": "2Gi"}).success


def test_runs_are_queued_by_the_coordinator_that_sizes_them() -> None:
    section = profile.values()["dagsterDaemon"]["runCoordinator"]
    assert (section["enabled"], section["type"]) == (True, "CustomRunCoordinator")
    custom = section["config"]["customRunCoordinator"]
    found = getattr(importlib.import_module(custom["module"]), custom["class"])
    assert found is SizedRunCoordinator
    read = accepted(found.config_type(), custom["config"])
    (large,) = read["tag_concurrency_limits"]
    assert (large["key"], large["value"]) == (SIZE_TAG, SIZES[-1])
    assert 0 < large["limit"] < read["max_concurrent_runs"] < 1000


@pytest.mark.parametrize(
    ("reason", "again"),
    [(RunFailureReason.STEP_FAILURE, False), (RunFailureReason.RUN_EXCEPTION, True)],
)
def test_a_lost_pod_is_tried_again_and_a_failed_gate_is_not(
    reason: RunFailureReason, again: bool, tmp_path: Path
) -> None:
    retries = profile.dagster_yaml(profile.values())["run_retries"]
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({"telemetry": {"enabled": False}, "run_retries": retries}), encoding="utf-8"
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = DagsterRun(
            job_name="power_price_all",
            status=DagsterRunStatus.FAILURE,
            tags={RUN_FAILURE_REASON_TAG: reason.value},
        )
        instance.add_run(run)
        assert auto_reexecution_should_retry_run(instance, run, reason) is again


def test_a_run_whose_pod_is_lost_is_noticed() -> None:
    monitoring = profile.dagster_yaml(profile.values())["run_monitoring"]
    assert monitoring["enabled"] is True
    assert monitoring["poll_interval_seconds"] < monitoring["start_timeout_seconds"]


def test_nothing_is_sent_home_and_no_output_is_captured() -> None:
    chart = profile.values()
    written = profile.dagster_yaml(chart)
    assert written["telemetry"] == written["nux"] == {"enabled": False}
    assert written["compute_logs"]["class"] == "NoOpComputeLogManager"
    silent = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    assert silent.items() <= profile.manifest("ConfigMap")["data"].items()
    assert all(f"{name}={value}" in _dockerfile() for name, value in silent.items())


# Names that have to agree


def test_the_code_location_has_its_name_and_a_host_that_kubernetes_allows() -> None:
    chart = profile.values()
    workspace = chart["dagsterWebserver"]["workspace"]
    (server,) = workspace["servers"]
    (code,) = chart["dagster-user-deployments"]["deployments"]
    (location,) = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())["load_from"]
    assert workspace["enabled"] is True
    assert server["name"] == location["python_module"]["location_name"] == "mlops_assets"
    assert (server["host"], server["port"]) == (code["name"], code["port"])
    assert LABEL.fullmatch(code["name"])
    assert code["dagsterApiGrpcArgs"] == ["-m", location["python_module"]["module_name"]]


def test_the_webserver_is_asked_whether_it_is_ready_where_it_serves() -> None:
    section = profile.values()["dagsterWebserver"]
    assert section["readinessProbe"]["httpGet"]["port"] == section["service"]["port"]
    assert section["service"]["port"] >= 1024, "nothing runs as root"


def test_every_config_map_and_secret_that_is_named_is_made() -> None:
    made = {"mlops-assets-config": set(profile.manifest("ConfigMap")["data"]), **_secrets()}
    assert set(_secrets()) == {"mlops-assets-secret", "mlops-assets-postgresql"}
    chart = profile.values()
    named = {
        each["name"]
        for section in profile.mappings(chart)
        for key in ("envConfigMaps", "envSecrets")
        for each in section.get(key, ())
    }
    assert named == {"mlops-assets-config", "mlops-assets-secret"}
    assert "postgresql-password" in made[chart["global"]["postgresqlSecretName"]]
    sources = ("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef")
    references = [
        each[source]
        for each in profile.mappings(profile.manifest("Deployment"))
        for source in sources
        if source in each
    ]
    assert len(references) == 5
    for reference in references:
        assert {reference.get("key", "")} - {""} <= made[reference["name"]], reference


def _secrets() -> dict[str, set[str]]:
    """Names and keys of the secrets that the guide has a person make."""
    text = profile.GUIDE.read_text(encoding="utf-8").replace("\\\n", " ")
    made = {}
    for line in re.findall(r"^ *kubectl .*create secret generic .*$", text, re.MULTILINE):
        words = shlex.split(line)
        name = words[words.index("generic") + 1]
        made[name] = {
            word.partition("=")[2].partition("=")[0]
            for word in words
            if word.startswith("--from-literal=")
        }
    return made


def test_the_environment_leads_to_s3_and_to_the_service_of_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = profile.manifest("ConfigMap")["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    places = (settings.storage, settings.landing, settings.mlflow_artifacts)
    assert all(place.startswith("s3://") for place in places)
    assert len(set(places)) == 3
    service = profile.manifest("Service")
    (port,) = service["spec"]["ports"]
    assert settings.mlflow_uri == f"http://{service['metadata']['name']}:{port['port']}"


def test_every_variable_is_one_that_the_project_reads() -> None:
    listed = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
    ours = set(re.findall(r"^#([A-Z_]+)=", listed, re.MULTILINE))
    others = {
        *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        *("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"),
    }
    assert set(profile.manifest("ConfigMap")["data"]) <= ours | others
    assert _secrets()["mlops-assets-secret"] == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_service_of_mlflow_leads_to_its_server() -> None:
    service, server = profile.manifest("Service"), profile.manifest("Deployment")
    selector = service["spec"]["selector"]
    assert selector.items() <= server["spec"]["template"]["metadata"]["labels"].items()
    (port,) = container(server)["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    arguments = container(server)["args"]
    assert arguments[arguments.index("--port") + 1] == str(port["containerPort"])


def test_mlflow_answers_under_the_name_of_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.server import security_utils as security

    environment = {each["name"]: each.get("value") for each in container(_mlflow())["env"]}
    asked = profile.manifest("ConfigMap")["data"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert not security.is_allowed_host_header(security.get_default_allowed_hosts(), asked)
    monkeypatch.setenv(
        "MLFLOW_SERVER_ALLOWED_HOSTS", str(environment["MLFLOW_SERVER_ALLOWED_HOSTS"])
    )
    allowed = security.get_allowed_hosts_from_env()
    assert security.is_allowed_host_header(allowed or [], asked)
    assert not security.is_allowed_host_header(allowed or [], "elsewhere.example.org")


def _mlflow() -> dict[str, Any]:
    return profile.manifest("Deployment")


# The image, and what must not be in the files


def test_nothing_runs_as_root_or_can_become_it(
    launch: Callable[[Mapping[str, str]], dict[str, Any]],
) -> None:
    user = int(re.findall(r"^USER (\d+)$", _dockerfile(), re.MULTILINE)[-1])
    assert user > 0
    deployments = [profile.deployment(each) for each in profile.servers()]
    for document in (*deployments, _mlflow(), launch({})):
        security = pod(document)["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, user)
        assert container(document)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_memory_is_limited_everywhere_and_cpu_nowhere() -> None:
    deployments = [profile.deployment(each) for each in profile.servers()]
    launcher = profile.values()["runLauncher"]["config"]["k8sRunLauncher"]
    for resources in (
        launcher["resources"],
        *(container(document)["resources"] for document in (*deployments, _mlflow())),
    ):
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}
        assert "cpu" in resources["requests"]


def test_one_image_serves_all_and_its_registry_is_left_to_fill_in() -> None:
    images = {profile.image_name(each.values["image"]) for each in profile.servers()}
    assert images == {container(_mlflow())["image"]} == {"your-registry/mlops_assets:your-tag"}


def test_the_guide_names_everything_there_is_to_fill_in() -> None:
    left = {
        word
        for file in profile.FOLDER.glob("*.yaml")
        for word in re.findall(r"your-[a-z0-9-]*[a-z0-9]", file.read_text(encoding="utf-8"))
    }
    assert len(left) == 6
    guide = profile.GUIDE.read_text(encoding="utf-8")
    assert {word for word in left if f"`{word}`" not in guide} == set()


def test_no_file_of_the_profile_has_a_password_or_a_path_of_a_machine() -> None:
    assert len(profile.files()) == 5
    for file in profile.files():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?i)(password|secret_access_key) *[:=] *['\"]?\w", text), file
        assert not re.search(r"(?<![\w.])/(work|home|root|Users|mnt)\b", text), file


def _dockerfile() -> str:
    return profile.DOCKERFILE.read_text(encoding="utf-8")


def test_the_image_has_what_it_copies_and_the_extra_it_installs() -> None:
    text = _dockerfile()
    ignored = profile.DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8")
    sent = set(re.findall(r"^!(.+)$", ignored, re.MULTILINE))
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert {source.split("/")[0] for source in copied} == sent
    assert all((PROJECT_ROOT / source).exists() for source in copied)
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "pyproject.toml" in copied, "Dagster finds the products beside it"
    (extra,) = re.findall(r"--editable '\.\[(\w+)\]'", text)
    extras = project["project"]["optional-dependencies"]
    assert extra in extras
    for needed in ("dagster-k8s", "dagster-postgres", "psycopg2-binary", "s3fs", "boto3"):
        assert any(line.startswith(needed) for line in extras[extra]), needed


# The chart itself, for those who have it


@pytest.mark.skipif(
    not os.environ.get("DAGSTER_CHART"),
    reason="DAGSTER_CHART names no unpacked chart (docs/guide/kubernetes.md)",
)
def test_the_chart_takes_the_values_and_knows_every_key() -> None:
    from jsonschema import Draft7Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    folder = Path(os.environ["DAGSTER_CHART"])
    schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))
    kind = cast(Any, validator_for(schema, Draft7Validator))
    registry: Any = Registry(retrieve=cast(Any, _kubernetes_definitions))
    validator = kind(schema, registry=registry)
    errors = list(validator.iter_errors(profile.over(defaults, profile.values())))
    assert [f"{error.json_path}: {error.message[:200]}" for error in errors] == []
    assert _named(profile.values()) - _named(defaults) - _named(schema) == set()


def _kubernetes_definitions(uri: str) -> Any:
    """What the chart's schema takes from a page of Kubernetes definitions, without the network."""
    from kubernetes_validate.utils import schema_contents
    from referencing.jsonschema import DRAFT7

    assert uri.endswith("/_definitions.json"), uri
    path = "kubernetes-json-schema/v1.25.0-local/_definitions.json"
    kinds = schema_contents(path, "1.25")["$defs"]
    return DRAFT7.create_resource({"$defs": kinds, "definitions": kinds})


_FREE = {
    *("resources", "securityContext", "podSecurityContext", "readinessProbe", "config"),
    *("podSpecConfig", "jobSpecConfig", "additionalInstanceConfig"),
}
"""Keys below which the chart hands on what it gets; `config` of a custom class is one of them."""


def _named(tree: Any) -> set[str]:
    """Every key, but for those below what the chart only hands on."""
    if isinstance(tree, list):
        return set().union(*(_named(each) for each in tree))
    if not isinstance(tree, Mapping):
        return set()
    below = (
        _named(value)
        for key, value in tree.items()
        if key not in _FREE or (key == "config" and "module" not in tree)
    )
    return {str(key) for key in tree}.union(*below)
