"""Registered models and their aliases: one registered model a country.

`<product>.<COUNTRY>` holds the versions of a country, `<product>.pooled-<candidate>` those of the
pooled model of a candidate, `<product>.pooled-<candidate>-<region>` those of a region's.
Aliases: `champion` is in use, `previous` was before it, `challenger` is the newest candidate.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.advisory_lock import is_shared, one_at_a_time
from mlops_assets.atomic import settle
from mlops_assets.errors import RegistryError
from mlops_assets.registry.names import registered_name
from mlops_assets.registry.places import Elsewhere, elsewhere, settle_in
from mlops_assets.registry.problems import deleted_experiment, no_answer
from mlops_assets.settings import without_password

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
PREVIOUS = "previous"
CHALLENGER = "challenger"
POOLED = "pooled"

TRUSTED_PREFIXES: tuple[str, ...] = ("sklearn.", "mlops_assets.ml.estimators.")
"""A model made of other types is neither logged nor loaded.

The list inside the model's own MLmodel file is no boundary: whoever writes the model writes it.
"""
TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "functools.partial",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "numpy.mean",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csr.csr_matrix",
        "sklearn.utils.validation.check_array",
    }
)
"""Trusted by their whole name. The function inside a partial is listed, and judged, by its own."""

REFUSED_PREFIXES: tuple[str, ...] = (
    "sklearn.datasets.",
    "sklearn.externals.",
    "sklearn.tests.",
    "sklearn.utils.",
)
"""Parts of scikit-learn that reach files, processes and the network, and hold no estimator."""

DIGEST_TAG = "mlops_assets.sha256"
_found_whole: set[str] = set()
"""Databases whose tables are there, as this process has seen."""
_MODEL_FILE = "model.skops"
_DESCRIPTION_FILE = "MLmodel"
_PAGE = 1000


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes:
        name: of the registered model.
        version: its number.
        uri: of its files.
        run_id: the MLflow run it is from.
        kind: local, region or pooled.
        tags: all of them.
    """

    name: str
    version: str
    uri: str
    run_id: str
    kind: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Aliases:
    """The versions that the aliases of a registered model name; "" where one names none."""

    champion: str = ""
    previous: str = ""
    challenger: str = ""

    def moved_to(self, version: str) -> Aliases:
        """After `version` was put into use: `previous` is always what was in use just before.

        So a rollback to `previous` that is done twice comes back to where it began.
        """
        return Aliases(version, self.champion, self.challenger)


@dataclass(frozen=True)
class LoadedModel:
    """A fitted estimator and the feature columns it takes."""

    estimator: Any
    features: tuple[str, ...]


@dataclass(frozen=True)
class LoggedModel:
    """A model stored with a training run, not yet registered."""

    uri: str
    digest: str


class Registry:
    """The models of this project in one MLflow backend.

    Args:
        tracking_uri: SQLAlchemy URL of the MLflow database, or a tracking server.
        artifact_root: folder or object-store prefix of model files.
    """

    def __init__(self, tracking_uri: str, artifact_root: str) -> None:
        self.tracking_uri = tracking_uri
        self.artifact_root = artifact_root

    def initialise(self) -> None:
        """Create the database once, whatever the number of processes that start together.

        Raises:
            RegistryError: the backend does not answer.
        """
        if _sqlite_path(self.tracking_uri) is not None:
            self.create()
            self._settle()
        elif is_shared(self.tracking_uri):
            self._probe_alone()
        else:
            self._probe()

    def create(self) -> None:
        """Create the database if it is a file that is not there.

        It takes seconds in a process of its own, and imports nothing here: a thread may wait for
        it while others import.

        Raises:
            RegistryError: it could not be created.
        """
        database = _sqlite_path(self.tracking_uri)
        if database is not None and not database.exists():
            self._create(database)

    def experiment(self, product: str) -> str:
        """Id of the product's experiment, made at need with its artifacts under our root.

        Raises:
            RegistryError: somebody has deleted it.
        """
        from mlflow.exceptions import MlflowException

        client = self._client()
        found = client.get_experiment_by_name(product)
        if found is not None and found.lifecycle_stage == "deleted":
            raise deleted_experiment(self.tracking_uri, product, found.experiment_id)
        if found is not None:
            return found.experiment_id
        location = f"{self.artifact_root.rstrip('/')}/{product}"
        try:
            return client.create_experiment(product, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            again = client.get_experiment_by_name(product)  # another process was first
            assert again is not None
            return again.experiment_id

    def register(
        self,
        product: str,
        country: str,
        logged: LoggedModel,
        *,
        run_id: str,
        kind: str,
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """Add a version and name it challenger; the champion stays who it is."""
        import mlflow
        from mlflow.exceptions import MlflowException

        # MLflow looks the files up in the tracking server of the process, whoever's client asks.
        mlflow.set_tracking_uri(self.tracking_uri)
        client = self._client()
        name = registered_name(product, country)
        try:
            client.create_registered_model(name, tags={"product": product, "country": country})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        all_tags = {**tags, "kind": kind, DIGEST_TAG: logged.digest}
        made = client.create_model_version(
            name, source=logged.uri, run_id=run_id, tags=all_tags, await_creation_for=0
        )
        client.set_registered_model_alias(name, CHALLENGER, made.version)
        return _record(made, all_tags)

    def promote(self, version: ModelVersion) -> None:
        """Make `version` the champion; the champion so far becomes `previous`.

        The champion alias moves last: a crash in between leaves the old champion in use.
        """
        named = self.aliases(version.name)
        if named.champion != version.version:
            self.point(version.name, named.moved_to(version.version))

    def aliases(self, name: str) -> Aliases:
        """What the aliases of a registered model name; all empty when there is no such model.

        Raises:
            RegistryError: the backend does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            named = self._client().get_registered_model(name).aliases or {}
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return Aliases()
            raise self._no_answer(error) from error
        return _named(named)

    def point(self, name: str, wanted: Aliases) -> None:
        """Let `champion` and `previous` name what they are to name; "" removes the alias.

        The champion alias moves last: a crash in between leaves the old champion in use.
        `challenger` is not touched: it is the newest candidate whatever becomes of it.
        """
        client = self._client()
        for alias, number in ((PREVIOUS, wanted.previous), (CHAMPION, wanted.champion)):
            if number:
                client.set_registered_model_alias(name, alias, number)
            else:
                client.delete_registered_model_alias(name, alias)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Write tags on a registered version."""
        client = self._client()
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value)

    def champion(self, product: str, country: str) -> ModelVersion | None:
        """The version in use in a country, None when none was promoted yet."""
        return self.by_alias(registered_name(product, country), CHAMPION)

    def require_experiment(self, product: str) -> None:
        """Check that trainings of a product can be recorded.

        Raises:
            RegistryError: somebody has deleted its experiment.
        """
        found = self._client().get_experiment_by_name(product)
        if found is not None and found.lifecycle_stage == "deleted":
            raise deleted_experiment(self.tracking_uri, product, found.experiment_id)

    def champions(self, product: str) -> dict[str, ModelVersion]:
        """The champions of every country of a product, by country, without the pooled models.

        One query for the aliases and one for each version number in use, not one a country.

        Raises:
            RegistryError: the backend does not answer.
        """
        from mlflow.exceptions import MlflowException

        client = self._client()
        named = f"name LIKE '{product}.%'"
        try:
            models = every_page(client.search_registered_models, named)
            aliases = {model.name: (model.aliases or {}).get(CHAMPION) for model in models}
            versions = {
                (made.name, str(made.version)): made
                for number in sorted({number for number in aliases.values() if number})
                for made in every_page(
                    client.search_model_versions, f"{named} AND version_number = {number}"
                )
            }
        except MlflowException as error:
            raise self._no_answer(error) from error
        return {
            model.tags["country"]: _record(versions[model.name, str(number)])
            for model in models
            if (number := aliases[model.name]) and _is_of_country(model, product)
        }

    def aliases_of_all(self, product: str) -> dict[str, Aliases]:
        """What the aliases name in every country of a product, without the pooled models.

        One query. A country that has no registered model is left out.

        Raises:
            RegistryError: the backend does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            models = every_page(self._client().search_registered_models, f"name LIKE '{product}.%'")
        except MlflowException as error:
            raise self._no_answer(error) from error
        return {
            model.tags["country"]: _named(model.aliases or {})
            for model in models
            if _is_of_country(model, product)
        }

    def end_runs_of(self, dagster_run_id: str) -> int:
        """End the MLflow runs a dead process left open; returns how many there were.

        Args:
            dagster_run_id: the Dagster run whose process is gone.
        """
        client = self._client()
        experiments = [each.experiment_id for each in client.search_experiments()]
        left = client.search_runs(
            experiments,
            f"tags.dagster_run_id = '{dagster_run_id}' AND attributes.status = 'RUNNING'",
        )
        for run in left:
            client.set_terminated(run.info.run_id, "KILLED")
        return len(left)

    def version(self, name: str, number: str) -> ModelVersion:
        """One registered version by name and number.

        Raises:
            RegistryError: there is no such version.
        """
        from mlflow.exceptions import MlflowException

        try:
            return _record(self._client().get_model_version(name, number))
        except MlflowException as error:
            raise RegistryError(f"There is no version {number} of {name}: {error}.") from error

    def version_numbers(self, name: str) -> list[str]:
        """The numbers of a registered model's versions, oldest first; empty when there is none."""
        found = every_page(self._client().search_model_versions, f"name = '{name}'")
        return [str(number) for number in sorted(int(made.version) for made in found)]

    def artifact(self, version: ModelVersion, name: str) -> str:
        """A text among the artifacts of the training run that a version is from.

        Raises:
            RegistryError: the run or the file is gone, or cannot be read.
        """
        import mlflow
        from mlflow import artifacts

        mlflow.set_tracking_uri(self.tracking_uri)
        try:
            root = self._client().get_run(version.run_id).info.artifact_uri
            return artifacts.load_text(f"{root}/{name}")
        except Exception as error:
            raise RegistryError(
                f"{name}, which the training of {version.name} version {version.version} left in "
                f"MLflow run {version.run_id}, cannot be read: {error}.",
                stored="Nothing was written; the model itself is untouched.",
                way_out=f"Put it back under {self.artifact_root}, or take a version trained later.",
                culprits={"model": version.name, "version": version.version, "artifact": name},
            ) from error

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version an alias names, None when model or alias do not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return _record(self._client().get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise RegistryError(
                f"The model registry did not answer for {name}@{alias}: "
                f"{without_password(str(error))}.",
                way_out=f"Check that {without_password(self.tracking_uri)} can be reached, and "
                "run again.",
            ) from error

    def load(self, version: ModelVersion) -> LoadedModel:
        """The fitted estimator of a version, after its digest and types were checked.

        Raises:
            RegistryError: files are gone or were changed, or hold types that are not trusted.
        """
        with self._files(version) as folder:
            return _held(version, folder)

    def require_intact(self, version: ModelVersion) -> None:
        """Check that the files of a version are those that were registered, without loading them.

        Raises:
            RegistryError: they are gone or were changed.
        """
        with self._files(version) as folder:
            _require_digest(version, folder)

    def bytes_of(self, version: ModelVersion) -> int:
        """Size of what is read of a version's files, in bytes.

        Raises:
            RegistryError: they cannot be read.
        """
        with self._files(version) as folder:
            return file_bytes(folder)

    def fetch(self, version: ModelVersion, into: Path | None = None) -> Path:
        """The folder with the files of a version, unchecked; see `read_model`.

        Args:
            version: whose files are wanted.
            into: where to put a copy of what is read; None: where they are, in a local folder.

        Raises:
            RegistryError: they cannot be read.
        """
        return self._placed(version, into)

    @contextmanager
    def _files(self, version: ModelVersion) -> Iterator[Path]:
        """The folder with the files of a version, unchecked; a copy only until the block ends."""
        with _place_for(self.artifact_root) as target:
            yield self._placed(version, target)

    def _placed(self, version: ModelVersion, target: Path | None) -> Path:
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        try:
            return _download(version.uri, target)
        except Exception as error:
            raise _unusable(version, f"its files cannot be read ({error})") from error

    def _client(self) -> MlflowClient:
        """A client of the backend, whose addresses lead to this root.

        Raises:
            RegistryError: its tables are not those that this MLflow knows, or cannot be read.
            BusyError: another process uses it at another place.
        """
        from mlops_assets.registry.mlflow_compat import registry_client

        self._settle()
        database = _sqlite_path(self.tracking_uri)
        try:
            client = registry_client(self.tracking_uri)
            if self.tracking_uri not in _found_whole and database is not None:
                client.search_registered_models(max_results=1)
                _found_whole.add(self.tracking_uri)
        except Exception as error:
            raise self._no_answer(error) from error
        return client

    def client(self) -> MlflowClient:
        """MLflow's own client of the backend; see `_client`."""
        return self._client()

    def elsewhere(self) -> Elsewhere | None:
        """What the registry names outside its root; None for nothing, or where that is not known.

        Raises:
            RegistryError: its database cannot be read.
        """
        database = _sqlite_path(self.tracking_uri)
        return None if database is None else elsewhere(database, self.artifact_root)

    def _settle(self) -> None:
        if (database := _sqlite_path(self.tracking_uri)) is not None:
            settle_in(database, self.artifact_root)

    def _probe(self) -> None:
        try:
            self._client().search_experiments(max_results=1)
        except Exception as error:
            raise self._no_answer(error) from error

    def _probe_alone(self) -> None:
        """The first time in a process no other one of any host, as MLflow may make its tables."""
        from sqlalchemy.exc import SQLAlchemyError

        if self.tracking_uri in _found_whole:
            self._probe()
            return
        try:
            with one_at_a_time(self.tracking_uri):
                self._probe()
        except SQLAlchemyError as error:
            raise self._no_answer(error) from error
        _found_whole.add(self.tracking_uri)

    def _no_answer(self, error: Exception) -> RegistryError:
        return no_answer(self.tracking_uri, error)

    def _create(self, database: Path) -> None:
        from filelock import FileLock

        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_created(database, error) from error
        with FileLock(f"{database}.lock"):
            if database.exists():
                return
            # Under a temporary name until it is whole: MLflow's migrations take seconds, and
            # a second process must never meet half a schema.
            partial = database.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            _create_schema(partial)
            settle(str(partial), str(database))


def _create_schema(database: Path) -> None:
    # In a process of its own: MLflow keeps engines open for as long as a process lives.
    code = (
        "import gc, sys; gc.disable(); from mlflow.tracking import MlflowClient; "
        "MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
    )
    # -P: a file called types.py in the current folder must not be taken for Python's own.
    command = [sys.executable, "-P", "-c", code, f"sqlite:///{database}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _not_created(database, done.stderr.strip()[-300:])
    connection = sqlite3.connect(database)
    connection.execute("pragma journal_mode=wal")  # a fifth faster with several writers
    connection.close()


def _not_created(database: Path, reason: object) -> RegistryError:
    return RegistryError(
        f"The MLflow database {database} could not be created: {reason}.",
        way_out="Check that its folder can be written, or set MLOPS_ASSETS_HOME or "
        "MLFLOW_TRACKING_URI, and run again.",
    )


def _named(aliases: Mapping[str, Any]) -> Aliases:
    champion, previous, challenger = (
        str(aliases.get(alias) or "") for alias in (CHAMPION, PREVIOUS, CHALLENGER)
    )
    return Aliases(champion, previous, challenger)


def every_page(search: Callable[..., Any], filter_string: str, **options: Any) -> list[Any]:
    """All that a search of MLflow finds.

    Args:
        search: a method of MLflow's client that gives a page at a time.
        filter_string: of it.
        options: of it, beside the page.
    """
    found, token = [], None
    while True:
        page = search(filter_string=filter_string, max_results=_PAGE, page_token=token, **options)
        found += page
        token = page.token
        if not token:
            return found


def _is_of_country(model: RegisteredModel, product: str) -> bool:
    """Not a pooled model, and not of another product: `_` in a LIKE stands for any character."""
    country = model.tags.get("country", "")
    return not country.startswith(f"{POOLED}-") and model.name == registered_name(product, country)


def log_model(model: Any, example_input: Any, example_output: Any, name: str) -> LoggedModel:
    """Store an estimator in the active MLflow run with skops and its signature.

    Raises:
        RegistryError: the estimator holds types outside `TRUSTED_PREFIXES`.
    """
    import skops.io
    from mlflow import get_artifact_uri, sklearn
    from mlflow.models import infer_signature

    try:
        types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    except Exception as error:
        raise RegistryError(
            f"The model cannot be stored without pickle: {error}",
            stored="The model was not logged.",
            way_out="Use estimators that skops can store.",
        ) from error
    if strangers := untrusted(types):
        raise RegistryError(
            f"The model holds types that are not trusted: {', '.join(strangers)}.",
            stored="The model was not logged.",
            way_out="Use scikit-learn estimators, or add the package to TRUSTED_PREFIXES.",
        )
    info = sklearn.log_model(
        model,
        name=name,
        serialization_format="skops",
        skops_trusted_types=types,
        pip_requirements=_requirements(types),
        signature=infer_signature(example_input, example_output),
        pyfunc_predict_fn="predict_proba" if hasattr(model, "predict_proba") else "predict",
    )
    with _place_for(get_artifact_uri()) as target:
        digest = _digest(_download(info.model_uri, target))
    _hold(digest, LoadedModel(model, tuple(map(str, example_input.columns))))
    return LoggedModel(uri=info.model_uri, digest=digest)


@contextmanager
def _place_for(root: str) -> Iterator[Path | None]:
    """A folder for a copy of files under `root`, gone after the block; None: read them there.

    A worker lives through hundreds of runs, each of which reads a dozen models.
    """
    if "://" not in root or root.startswith("file:"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mlops_assets-model-") as folder:
        yield Path(folder)


def _download(uri: str, target: Path | None) -> Path:
    """The folder with a model's files; of a copy, only what is read."""
    from mlflow import get_tracking_uri
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if target is None:
        if not (folder := _local_folder(get_tracking_uri(), uri)).exists():
            _local_folder.cache_clear()  # moved since, or gone
            folder = _local_folder(get_tracking_uri(), uri)
        return folder
    repository = get_artifact_repository(uri)
    for name in (_MODEL_FILE, _DESCRIPTION_FILE):
        repository.download_artifacts(name, dst_path=str(target))
    return target


@lru_cache(maxsize=512)
def _local_folder(tracking_uri: str, uri: str) -> Path:
    """Where a model's files are on this machine; a query of the database, once a process."""
    from mlflow import artifacts

    return Path(artifacts.download_artifacts(uri, tracking_uri=tracking_uri))


def untrusted(types: Iterable[str]) -> list[str]:
    """Those of the type names that are not trusted."""
    return [
        name
        for name in types
        if name not in TRUSTED_TYPES
        and (name.startswith(REFUSED_PREFIXES) or not name.startswith(TRUSTED_PREFIXES))
    ]


def _requirements(types: Iterable[str]) -> list[str]:
    """The distributions a model of these types is loaded with, at the versions of now."""
    from importlib.metadata import version

    lightgbm = ["lightgbm"] if any(name.startswith("lightgbm.") for name in types) else []
    names = ("scikit-learn", "skops", "pandas", "numpy", *lightgbm)
    return [f"{name}=={version(name)}" for name in names]


@dataclass(frozen=True)
class _Checked:
    """What a model's files say of it, after they were checked."""

    features: tuple[str, ...]
    types: tuple[str, ...]


def read_model(version: ModelVersion, folder: Path) -> LoadedModel:
    """The fitted estimator in `folder`, after its digest and types were checked.

    Needs no MLflow, which would take the file to read, the types to trust and a folder of code to
    import from the MLmodel file.

    Raises:
        RegistryError: files are gone or were changed, or hold types that are not trusted.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    checked = _verify(version, folder)
    file = folder / _MODEL_FILE
    try:
        try:
            estimator = skops.io.load(file, trusted=list(checked.types))
        except UntrustedTypesFoundException:  # it holds more than MLmodel says
            estimator = skops.io.load(file, trusted=_types_held(version, file))
    except RegistryError:
        raise
    except ImportError as error:
        raise _unusable(version, f"it needs a package that is not installed ({error})") from error
    except Exception as error:
        raise _unusable(version, f"its files are damaged ({error})") from error
    return LoadedModel(estimator, checked.features)


_HELD = 16
"""Models a process keeps: the pooled ones, which every country compares itself with, and those of
the country it works on, loaded or just trained."""
_held_models: OrderedDict[str, LoadedModel] = OrderedDict()


def _held(version: ModelVersion, folder: Path) -> LoadedModel:
    """`read_model`, once a process for the same files, and not where they were logged by it.

    They are read and their digest is taken every time, so that lost or changed files are never
    hidden by what was loaded before; parsing them costs a hundred times that.
    """
    _require_digest(version, folder)
    digest = version.tags[DIGEST_TAG]
    found = _held_models[digest] if digest in _held_models else read_model(version, folder)
    _hold(digest, found)
    return found


def _hold(digest: str, model: LoadedModel) -> None:
    """Keep a model as the one used last, and let go of the one that was not for the longest."""
    _held_models[digest] = model
    _held_models.move_to_end(digest)
    if len(_held_models) > _HELD:
        _held_models.popitem(last=False)


def file_bytes(folder: Path) -> int:
    """Size of what is read of a model, in bytes."""
    return sum((folder / name).stat().st_size for name in (_MODEL_FILE, _DESCRIPTION_FILE))


def _verify(version: ModelVersion, folder: Path) -> _Checked:
    """Inputs and types of the model in `folder`, if it is the one that was registered.

    The types are those that its MLmodel file names, if we trust all of them: skops refuses a model
    that holds any other.
    """
    _require_digest(version, folder)
    try:
        description = _description(folder)
        flavor = description["flavors"]["sklearn"]
        types = tuple(str(each) for each in flavor.get("skops_trusted_types") or ())
    except Exception as error:
        raise _unusable(version, f"its files are damaged ({error})") from error
    if flavor.get("serialization_format") != "skops":
        raise _unusable(version, "it is not stored with skops")
    if strangers := untrusted(sorted(types)):
        raise _unusable(version, f"it holds types that are not trusted: {', '.join(strangers)}")
    if not description.get("signature"):
        raise _unusable(version, "it has no signature")
    return _Checked(_input_names(description["signature"]), types)


def _types_held(version: ModelVersion, file: Path) -> list[str]:
    """The types in a model's file, if we trust all of them."""
    import skops.io

    types = skops.io.get_untrusted_types(file=file)
    if strangers := untrusted(types):
        raise _unusable(version, f"it holds types that are not trusted: {', '.join(strangers)}")
    return types


def _require_digest(version: ModelVersion, folder: Path) -> None:
    try:
        digest = _digest(folder)
    except OSError as error:
        raise _unusable(version, f"its files cannot be read ({error})") from error
    if digest != version.tags.get(DIGEST_TAG):
        raise _unusable(version, "its file is not the one that was registered")


def _description(folder: Path) -> dict[str, Any]:
    """What the MLmodel file says, which is YAML."""
    import yaml

    return yaml.safe_load((folder / _DESCRIPTION_FILE).read_text(encoding="utf-8"))


def _input_names(signature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the input columns, in order: the signature holds them as JSON."""
    return tuple(str(column["name"]) for column in json.loads(signature["inputs"]))


def _unusable(version: ModelVersion, reason: str) -> RegistryError:
    return RegistryError(
        f"{version.name} version {version.version} cannot be used: {reason}.",
        stored="Nothing was written; the champion alias is as it was.",
        way_out="Materialize `model` and `champion` of the country: it is trained again.",
    )


def _digest(folder: Path) -> str:
    """Over the model and over what says which inputs it takes."""
    content = (folder / _MODEL_FILE).read_bytes() + (folder / _DESCRIPTION_FILE).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _record(made: MlflowModelVersion, tags: Mapping[str, str] | None = None) -> ModelVersion:
    found = dict(made.tags if tags is None else tags)
    return ModelVersion(
        name=made.name,
        version=str(made.version),
        uri=made.source or "",
        run_id=made.run_id or "",
        kind=found.get("kind", ""),
        tags=found,
    )


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
