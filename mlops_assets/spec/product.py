"""The whole description of a product."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mlops_assets.spec.country_names import CountryNames
from mlops_assets.spec.cutoffs import CutoffsSpec
from mlops_assets.spec.evidence import (
    DecisionSpec,
    EvaluationSpec,
    GatesSpec,
    PredictionsSpec,
    RetentionSpec,
)
from mlops_assets.spec.fields import (
    Country,
    Cron,
    ImportPath,
    Metric,
    Name,
    Owner,
    Strict,
    Task,
    Text,
    added_later,
    refuse,
)
from mlops_assets.spec.monitoring import AlertsSpec, MonitoringSpec, RetrainingSpec
from mlops_assets.spec.resources import ResourcesSpec
from mlops_assets.spec.rules import OVERRIDABLE, again, broken_overrides, broken_rules
from mlops_assets.spec.sharing import SharingSpec
from mlops_assets.spec.source import ContractSpec, SourceSpec
from mlops_assets.spec.training import (
    BaselineSpec,
    CandidateSpec,
    SplitSpec,
    TargetSpec,
    TuningSpec,
    changed_split,
)

_LEFT_OUT: Any = object()
"""In place of a key that a dump leaves out."""


class ProductSpec(Strict):
    """One prediction problem in many countries."""

    description: Text = Field(
        description="what is predicted, for whom, when",
        examples=["Next-day electricity price for the trading desk, every morning"],
    )
    owners: list[Owner] = Field(
        min_length=1,
        description="e-mail addresses, or teams as team:name",
        examples=[["team:energy"]],
    )
    countries: list[Country] = Field(
        min_length=1,
        description="partition keys, normally ISO 3166-1 alpha-3 codes",
        examples=[["DEU", "FRA"]],
    )
    aliases: dict[Country, Country] = Field(
        default={},
        description="value found in the data: listed country it stands for; beside them the names "
        "and codes of ISO 3166 do (`source.country_names`)",
        examples=[{"CN": "CHN"}],
    )
    source: SourceSpec = Field(
        description="what is published and what its columns mean",
        examples=[
            {
                "columns": {"country": "ISO3 Code", "date": "Date", "price": "Price (EUR/MWhe)"},
                "country": "country",
                "key": ["country", "date"],
                "event_time": "date",
            }
        ],
    )
    contract: ContractSpec = Field(
        description="the table's contract and how much may break it",
        examples=[{"schema_class": "contract.PowerPrice", "max_rejected_share": 0.05}],
    )
    features: ImportPath = Field(
        description="pure feature function in the product's folder, as module.function",
        examples=["features.build"],
    )
    shared_features: ImportPath | None = Field(
        default=None,
        description="pure function of the validated records of all countries, as module.function; "
        "what it gives by event time is the second argument of the feature function in every "
        "country; default: none",
        examples=["features.shared"],
    )
    cutoffs: CutoffsSpec | None = added_later(
        None,
        description="calendar cut-offs of a snapshot product, which describes its entities at "
        "fixed times: the feature function takes those that are reached as its argument "
        "`cutoffs`, and returns rows at these times; default: the records say when rows are",
        examples=[{"every": "month", "first": "2023-01-01"}],
    )
    sharing: SharingSpec = added_later(
        SharingSpec(),
        description="which records of a country go into `shared_features`: those that follow from "
        "its own past",
        examples=[{"accepted": {"FRA": "2026-03-09"}}],
    )
    regions: dict[Name, list[Country]] = Field(
        default={},
        description="named groups of countries for candidates of scope region; a country is in "
        "one at most",
        examples=[{"nordic": ["DNK", "FIN", "NOR", "SWE"]}],
    )
    task: Task = Field(
        description="regression: a number; classification: the probability of a yes",
        examples=["regression"],
    )
    target: TargetSpec = Field(
        description="what is predicted and when the truth is known",
        examples=[{"description": "price of tomorrow", "unit": "EUR/MWh", "matures_after": "1d"}],
    )
    metric: Metric = Field(
        description="what candidates are compared by: mae or rmse for regression; auc, log_loss "
        "or brier for classification (lower is better, but for auc)",
        examples=["mae"],
    )
    split: SplitSpec = Field(
        description="time-ordered split into training, validation and holdout",
        examples=[{"holdout_from": "2025-01-01", "validation_days": 90}],
    )
    baselines: list[BaselineSpec] = Field(
        min_length=1,
        description="naive rules; the best one on validation rows serves when no model can, and "
        "realised errors are shown beside the first one",
        examples=[[{"name": "same_as_today", "rule": "feature", "feature": "price_lag_0"}]],
    )
    candidates: list[CandidateSpec] = Field(
        min_length=1,
        description="estimators of which the best by validation becomes the candidate",
        examples=[[{"name": "ridge", "estimator": "sklearn.linear_model.Ridge"}]],
    )
    tuning: TuningSpec = Field(
        default=TuningSpec(),
        description="budget of the search for parameters",
        examples=[{"trials": 10, "pooled_trials": 20}],
    )
    evaluation: EvaluationSpec = Field(
        default=EvaluationSpec(),
        description="how a candidate is judged on the holdout",
        examples=[{"slices": [{"feature": "hotel"}]}],
    )
    gates: GatesSpec = Field(
        default=GatesSpec(),
        description="limits a candidate must keep to become champion",
        examples=[{"min_improvement": 0.02}],
    )
    decision: DecisionSpec = Field(
        default=DecisionSpec(),
        description="when a candidate that passed its gates replaces the champion",
        examples=[{"margin": 0.01}],
    )
    predictions: PredictionsSpec = Field(
        description="what a valid prediction is", examples=[{"minimum": -500, "maximum": 4000}]
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="seed of everything random", examples=[0]
    )
    monitoring: MonitoringSpec = Field(
        default=MonitoringSpec(),
        description="how the model in use is watched",
        examples=[{"window_days": 28, "min_effect": 0.5}],
    )
    retraining: RetrainingSpec = Field(
        default=RetrainingSpec(),
        description="when a country is trained again, and how often at most",
        examples=[{"cooldown_days": 14, "per_day": 20}],
    )
    alerts: AlertsSpec = Field(
        default=AlertsSpec(),
        description="who is told of incidents, failures and countries that need a person",
        examples=[{"sinks": [{"kind": "slack", "url_env": "POWER_SLACK_URL"}]}],
    )
    resources: ResourcesSpec = Field(
        default=ResourcesSpec(),
        description="what a run of a country may use, by its size; changes nothing that is made",
        examples=[{"sizes": {"DEU": "large"}}],
    )
    retrain_cron: Cron | None = Field(
        default=None,
        description="cron (UTC) after which every country is due for training, within the same "
        "budget as other causes; default: none",
        examples=["0 4 * * 1"],
    )
    retention: RetentionSpec = Field(
        default=RetentionSpec(),
        description="how long snapshots are kept that no model, decision or newer snapshot needs; "
        "they go only when a person runs the command",
        examples=[{"as_of_days": 90}],
    )
    sample: ImportPath | None = Field(
        default=None,
        description="seeded generator of demonstration data, as module.function; default: none",
        examples=["sample.generate"],
    )
    overrides: dict[Country, dict[str, Any]] = Field(
        default={},
        description="values that differ in one country: " + ", ".join(sorted(OVERRIDABLE)),
        examples=[{"MNE": {"split": {"min_train_rows": 200}}}],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, data: Any, handler: ModelWrapValidatorHandler[ProductSpec]) -> ProductSpec:
        """Report what is wrong in single fields and between them in one go."""
        try:
            spec, found = handler(data), []
        except ValidationError as error:
            found = [again(details) for details in error.errors()]
            spec = cls._sound_part(data, {str(p["loc"][0]) for p in error.errors() if p["loc"]})
        found += broken_rules(spec)
        refuse(cls.__name__, [*found, *broken_overrides(spec, found)])
        return spec

    @classmethod
    def _sound_part(cls, data: Any, refused: set[str]) -> ProductSpec:
        """The sections that are valid by themselves, to judge rules between those."""
        given = data if isinstance(data, Mapping) else {}
        sound = {
            name: TypeAdapter(field.rebuild_annotation()).validate_python(given[name])
            for name, field in cls.model_fields.items()
            if name in given and name not in refused
        }
        return cls.model_construct(**sound)

    @property
    def country_names(self) -> CountryNames:
        """What published values of the country column stand for."""
        standard = self.source.country_names == "standard"
        return _country_names(tuple(self.countries), tuple(self.aliases.items()), standard)

    @property
    def made_after_all_records(self) -> bool:
        """Whether features of a country wait for the records of every one.

        Shared features are made of them, and the clock of cut-offs goes by them.
        """
        return self.shared_features is not None or self.cutoffs is not None

    def for_country(self, country: str) -> ProductSpec:
        """The spec with this country's overrides merged in (sections merged key by key)."""
        if country not in self.overrides:
            return self
        merged = self.model_dump(exclude={"overrides"})
        for section, change in self.overrides[country].items():
            merge = changed_split if section == "split" else _merged
            merged[section] = merge(merged.get(section), change)
        return ProductSpec.model_validate(merged)

    def config_hash(self, *sections: str) -> str:
        """12 hex digits over the named sections (default: all) as canonical JSON.

        Args:
            sections: such as `split`, or one key of a section such as `source.columns`; a key that
                is left out while it has its default, as those are that came later, adds nothing.
        """
        content: Any = self.model_dump(mode="json")
        if sections:
            _as_before(content)
            found = ((name, _at(content, name.split("."))) for name in sections)
            content = {name: value for name, value in found if value is not _LEFT_OUT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _as_before(content: Any) -> None:
    """Defaults of now and of before in each other's place: no two configs become one."""
    for (section, key), (default, before) in LATER_DEFAULTS.items():
        held = content[section][key]
        if held in (default, before):
            content[section][key] = before if held == default else default


LATER_DEFAULTS: Mapping[tuple[str, str], tuple[Any, Any]] = {
    ("decision", "refresh_after_days"): (7, None),
    ("retraining", "max_age_days"): (112, None),
    ("retraining", "give_up_after"): (6, 3),
}
"""Keys whose default a later release changed: now, and before. In a hash over sections the one of
before stands for it, so that what was decided is not decided again because of a release: the next
candidate is judged by the new one."""


@lru_cache(maxsize=64)
def _country_names(
    countries: tuple[str, ...], aliases: tuple[tuple[str, str], ...], standard: bool
) -> CountryNames:
    return CountryNames(countries, dict(aliases), standard)


def _at(content: Any, keys: Sequence[str]) -> Any:
    *sections, last = keys
    for key in sections:
        content = content[key]
    return content.get(last, _LEFT_OUT)


def _merged(base: Any, change: Any) -> Any:
    """A table changed key by key; anything else is replaced."""
    tables = isinstance(base, dict) and isinstance(change, dict)
    return {**base, **change} if tables else change
