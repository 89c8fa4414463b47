"""What a model was made from and with, stored beside it so that it can be made again.

Two JSON artifacts of the MLflow run that trained it: `config.json`, the resolved spec, and
`lineage.json`, everything else. Tags of the run and of the registered version name the same in
short.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mlops_assets.errors import RegistryError
from mlops_assets.ml.models.fitted_model import with_params
from mlops_assets.product import Product
from mlops_assets.provenance import Provenance, provenance_now
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import CandidateSpec, ProductSpec
from mlops_assets.spec.product import as_hashed
from mlops_assets.stages.common.lineage import CODE, INPUTS, SHARED, Lineage
from mlops_assets.stages.training.serving import PARAMS, params_of
from mlops_assets.storage import Snapshot

if TYPE_CHECKING:
    import pandas as pd

CONFIG_FILE = "config.json"
LINEAGE_FILE = "lineage.json"
TRIALS_FILE = "trials.csv"
RECORD_TAG = "mlops_assets.record"
"""On a registered version: the format of the record its training left."""
_FORMAT = "1"
_HASH_LENGTH = 12


@dataclass(frozen=True)
class FeaturesInput:
    """The features of one country a model was trained on.

    Attributes:
        version: of the snapshot.
        content_hash: of its rows; 32 hex digits.
        rows: how many there were.
        validated: content hash of the validated rows they were made from.
        code: hash of the feature function that made them.
        shared: content hash of the shared features they were made with; "" without any.
    """

    version: str
    content_hash: str
    rows: int
    validated: str
    code: str
    shared: str


@dataclass(frozen=True)
class TrainingRecord:
    """All that is needed to make a model again.

    Attributes:
        product: its name.
        country: for which it was trained; "" for the pooled models.
        spec: the config as it held there and then.
        features: by country.
        pooled: version of the pooled champions it was compared with, by pooled name.
        as_of: the moment whose knowledge it was made from (UTC); None: all there was.
        provenance: code, Python, libraries and machine.
        config_hash: of `spec` as it was then; a later spec may have more keys.
    """

    product: str
    country: str
    spec: ProductSpec
    features: Mapping[str, FeaturesInput]
    pooled: Mapping[str, str]
    as_of: dt.datetime | None
    provenance: Provenance
    config_hash: str

    def texts(self) -> dict[str, str]:
        """The artifacts by file name."""
        lineage = {
            "format": _FORMAT,
            "product": self.product,
            "country": self.country,
            "config_hash": self.config_hash,
            "seed": self.spec.seed,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "features": {name: asdict(each) for name, each in self.features.items()},
            "pooled": dict(self.pooled),
            "provenance": asdict(self.provenance),
        }
        return {
            CONFIG_FILE: json.dumps(self.spec.model_dump(mode="json"), indent=1),
            LINEAGE_FILE: json.dumps(lineage, indent=1),
        }

    def tags(self) -> dict[str, str]:
        """What the run and the registered version say of themselves in short."""
        return {
            "config_hash": self.config_hash,
            "code_version": self.provenance.product_code,
            "platform_code": self.provenance.platform_code,
            "libraries": self.provenance.short(),
            "seed": str(self.spec.seed),
            RECORD_TAG: _FORMAT,
        }


def record_now(
    product: Product,
    country: str,
    features: Mapping[str, Snapshot],
    pooled: Mapping[str, ModelVersion],
    *,
    as_of: dt.datetime | None,
) -> TrainingRecord:
    """The record of a training that starts now.

    Args:
        product: what is trained.
        country: for which; "" for the pooled models.
        features: the snapshots it is trained on, by country.
        pooled: the pooled champions it is compared with, by pooled name.
        as_of: the moment whose knowledge it is made from.
    """
    spec = product.resolved(country) if country else product.spec
    return TrainingRecord(
        product=product.name,
        country=country,
        spec=spec,
        features={name: _input(snapshot) for name, snapshot in features.items()},
        pooled={name: version.version for name, version in pooled.items()},
        as_of=as_of,
        provenance=provenance_now(product.code_version("features")),
        config_hash=spec.config_hash(),
    )


def run_tags(record: TrainingRecord, lineage: Lineage) -> dict[str, str]:
    """What leads from the MLflow run back to the code, config and snapshots it used."""
    return {
        **record.tags(),
        "product": record.product,
        "country": record.country or "pooled",
        "fingerprint": lineage.fingerprint,
        **{f"snapshot.{name}": value for name, value in lineage.inputs.items()},
    }


def trials_file(trials: "pd.DataFrame") -> dict[str, str]:
    """The table of a search as an artifact by file name; nothing where nothing was searched."""
    return {TRIALS_FILE: trials.to_csv(index=False)} if len(trials) else {}


def chosen_candidate(spec: ProductSpec, version: ModelVersion) -> CandidateSpec:
    """The candidate a version was made of, with the parameters a search had chosen for it.

    Args:
        spec: as it was recorded; says which parameters were searched.
        version: its tags name the candidate and what was chosen.

    Raises:
        RegistryError: the spec has no such candidate, or what was chosen is lost.
    """
    name = version.tags["candidate"]
    candidate = next((each for each in spec.candidates if each.name == name), None)
    if candidate is None:
        raise _unusable(version, CONFIG_FILE, f"has no candidate {name}")
    params = params_of(version)
    if candidate.space and not params and PARAMS not in version.tags:
        raise RegistryError(
            f"{version.name} version {version.version} was searched for its parameters, and its "
            f"tag {PARAMS} that says which were chosen is lost.",
            stored="Nothing was written; the model itself is untouched.",
            way_out=f"Put it back from the parameters of MLflow run {version.run_id}.",
            culprits={"model": version.name, "version": version.version},
        )
    searched = {key: params[key] for key in candidate.space if key in params}
    return with_params(candidate, searched)


def _input(snapshot: Snapshot) -> FeaturesInput:
    made_from = snapshot.metadata[INPUTS]
    return FeaturesInput(
        version=snapshot.version,
        content_hash=snapshot.content_hash,
        rows=snapshot.rows,
        validated=str(made_from["validated"]),
        code=str(snapshot.metadata[CODE]),
        shared=str(made_from.get(SHARED, "")),
    )


def recorded(version: ModelVersion, registry: Registry) -> TrainingRecord:
    """What a registered version was made from and with.

    Raises:
        RegistryError: its record is lost, was changed, or is of a config that the spec of today
            does not know any more.
    """
    config = _read(version, registry, CONFIG_FILE)
    lineage = _read(version, registry, LINEAGE_FILE)
    if version.tags.get("config_hash") not in (_hash(config), _hash(as_hashed(config))):
        raise _unusable(version, CONFIG_FILE, "is not the one the model was trained with")
    try:
        return _parsed(lineage, ProductSpec.model_validate(config))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        problem = f"does not fit the spec of today ({problem})"
        raise _unusable(version, CONFIG_FILE, problem) from error
    except (KeyError, TypeError, ValueError) as error:
        problem = f"is damaged ({type(error).__name__}: {error})"
        raise _unusable(version, LINEAGE_FILE, problem) from error


def _read(version: ModelVersion, registry: Registry, name: str) -> Any:
    try:
        return json.loads(registry.artifact(version, name))
    except ValueError as error:
        raise _unusable(version, name, f"is damaged ({error})") from error


def _hash(config: Any) -> str:
    """As `ProductSpec.config_hash`, whatever keys the spec has gained since."""
    content = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]


def _parsed(lineage: Mapping[str, Any], spec: ProductSpec) -> TrainingRecord:
    country, as_of = lineage["country"], lineage["as_of"]
    features = {name: FeaturesInput(**each) for name, each in lineage["features"].items()}
    if country and country not in features:
        raise ValueError(f"it names no features of {country}")
    return TrainingRecord(
        product=lineage["product"],
        country=country,
        spec=spec,
        features=features,
        pooled=lineage["pooled"],
        as_of=dt.datetime.fromisoformat(as_of) if as_of else None,
        provenance=Provenance(**lineage["provenance"]),
        config_hash=lineage["config_hash"],
    )


def _unusable(version: ModelVersion, name: str, problem: str) -> RegistryError:
    return RegistryError(
        f"{name} of {version.name} version {version.version} {problem}.",
        stored="Nothing was written; the model itself is untouched.",
        way_out=f"It is an artifact of MLflow run {version.run_id}: put the original back, or run "
        "the code version the model was trained with.",
        culprits={"model": version.name, "version": version.version, "artifact": name},
    )
