"""The typed, strict description of one product: what `defs.yaml` says, checked.

The bottom layer: it knows neither Dagster nor MLflow nor files. A `ProductSpec` is complete and
consistent once it exists; `for_country` resolves the overrides of one country. All broken rules are
reported together.
"""

from mlops_assets.spec.country_names import CountryNames, country_text
from mlops_assets.spec.cutoffs import CutoffsSpec
from mlops_assets.spec.evidence import (
    GATES,
    BehaviourSpec,
    ChangeSpec,
    DecisionSpec,
    EarlierDecisionSpec,
    EarlierEvaluationSpec,
    EvaluationSpec,
    FairnessSpec,
    GateName,
    GatesSpec,
    PredictionsSpec,
    RetentionSpec,
    SliceSpec,
)
from mlops_assets.spec.fields import (
    DATABASES,
    FEATURE_KEYS,
    GREATER_IS_BETTER,
    METRICS_OF_TASK,
    NAME,
    REFERENCE,
    Metric,
    Scope,
    Task,
    duration,
)
from mlops_assets.spec.monitoring import (
    AlertsSpec,
    Cause,
    MonitoringSpec,
    RetrainingSpec,
    SinkSpec,
)
from mlops_assets.spec.product import ProductSpec
from mlops_assets.spec.resources import SIZES, ResourcesSpec, Size, SizeClass
from mlops_assets.spec.rules import OVERRIDABLE
from mlops_assets.spec.sharing import SharingSpec
from mlops_assets.spec.source import ContractSpec, HttpSpec, SourceSpec, SqlSpec, landing_name
from mlops_assets.spec.training import (
    BaselineSpec,
    CandidateSpec,
    SpaceSpec,
    SplitDates,
    SplitSpec,
    TargetSpec,
    TuningSpec,
)

__all__ = [
    "DATABASES",
    "FEATURE_KEYS",
    "GATES",
    "GREATER_IS_BETTER",
    "METRICS_OF_TASK",
    "NAME",
    "OVERRIDABLE",
    "REFERENCE",
    "SIZES",
    "AlertsSpec",
    "BaselineSpec",
    "BehaviourSpec",
    "CandidateSpec",
    "Cause",
    "ChangeSpec",
    "ContractSpec",
    "CountryNames",
    "CutoffsSpec",
    "DecisionSpec",
    "EarlierDecisionSpec",
    "EarlierEvaluationSpec",
    "EvaluationSpec",
    "FairnessSpec",
    "GateName",
    "GatesSpec",
    "HttpSpec",
    "Metric",
    "MonitoringSpec",
    "PredictionsSpec",
    "ProductSpec",
    "ResourcesSpec",
    "RetentionSpec",
    "RetrainingSpec",
    "Scope",
    "SharingSpec",
    "SinkSpec",
    "Size",
    "SizeClass",
    "SliceSpec",
    "SourceSpec",
    "SpaceSpec",
    "SplitDates",
    "SplitSpec",
    "SqlSpec",
    "TargetSpec",
    "Task",
    "TuningSpec",
    "country_text",
    "duration",
    "landing_name",
]
