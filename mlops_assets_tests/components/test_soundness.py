"""A product that cannot work is refused at the line that makes it so, before anything runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_assets.components.loading import load_product, load_products
from mlops_assets.components.scaffold import new_product
from mlops_assets.components.soundness import require_sound
from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.platform import edit

GBM = "sklearn.ensemble.HistGradientBoostingRegressor"
PARAMS = "params: {max_iter: 100, learning_rate: 0.1}"
OFFSET = "scopes: [local]"
AT_TASK = "  task: regression\n"
FIXED = "holdout_from: 2024-10-01"
TUNING = f"  tuning: {{trials: 2}}\n{AT_TASK}"
YES = '"label": (demand.shift(-1) > 1000).astype(float).where(demand.shift(-1).notna()).to_numpy(),'


@dataclass(frozen=True)
class Mistake:
    """What is written instead of something right, and what is said of it.

    Args:
        name: of the case.
        key: the message names.
        says: of the culprit.
        yaml: pairs of old and new text of defs.yaml, one after the other.
        contract: the same of contract.py.
        features: the same of features.py.
        thorough: whether only the thorough check can see it.
    """

    name: str
    key: str
    says: str
    yaml: tuple[str, ...] = ()
    contract: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    thorough: bool = True


def light(name: str, key: str, says: str, *yaml: str, **more: tuple[str, ...]) -> Mistake:
    return Mistake(name, key, says, yaml, thorough=False, **more)


def named(name: str, key: str, section: str) -> Mistake:
    says = "'mean_of_weak' is no feature, did you mean mean_of_week? There are demand_today"
    return Mistake(name, key, says, (AT_TASK, f"  {section}\n{AT_TASK}"))


MINIMUM = "{name: b, test: minimum, change: {mean_of_week: {add: 1}}, "
MISTAKES = [
    light("validation_as_long_as_maturity", "split.validation_days", "no longer than matures_after",
          "matures_after: 1d", "matures_after: 90d"),
    light("holdout_shorter_than_maturity", "split.holdout_days", "no longer than matures_after 40d",
          "matures_after: 1d", "matures_after: 40d", FIXED, "holdout_days: 30"),
    light("training_shorter_than_maturity", "split.train_days", "train_days less validation_days",
          "matures_after: 1d", "matures_after: 40d", FIXED, "train_days: 120\n    " + FIXED),
    light("validation_of_one_country", "overrides.NOR.split.validation_days", "is 3, no longer",
          "matures_after: 1d", "matures_after: 1w",
          "        min_train_rows: 100", "        validation_days: 3"),
    light("published_column_not_in_contract", "source.columns.demandd",
          "'demandd' is no column of contract.Demand, did you mean demand?",
          "      demand: Demand", "      demandd: Demand"),
    light("derived_column_not_in_contract", "source.derived[0]", "'month' is no column",
          "    event_time: date", "    event_time: date\n    derived: [month]"),
    light("contract_column_not_published", "source.columns", "needs the column demand",
          "      demand: Demand (parcels)\n", ""),
    light("rule_of_a_column_that_is_not_there", "contract.schema_class", "'demandd'",
          contract=("    class Config:", '    @pa.check("demandd")\n    def known(cls, values):\n'
                    "        return values > 0\n\n    class Config:")),
    light("unique_of_a_column_that_is_not_there", "contract.schema_class",
          "'dat' is no column of the contract, whose `unique` names it, did you mean date?",
          contract=("        coerce = True", '        coerce = True\n        unique = ["dat"]')),
    light("event_time_that_is_a_number", "source.event_time", "'demand' is float64",
          "event_time: date", "event_time: demand"),
    light("country_that_is_a_number", "source.country", "'demand' is float64",
          "    country: country", "    country: demand"),
    light("country_that_the_contract_rejects", "countries[1]", "'France' breaks the rule",
          "[DEU, FRA, NOR]", "[DEU, France, NOR]"),
    light("contract_that_cannot_be_imported", "contract.schema_class", "NameError",
          contract=("import pandas as pd", "import pandas as pd\n\nnothing_there")),
    Mistake("check_of_a_column_that_is_not_there", "contract.schema_class", 'KeyError("demandd")',
            contract=("    class Config:", "    @pa.dataframe_check\n    def known(cls, frame):\n"
                      '        return frame["demandd"] > 0\n\n    class Config:')),
    Mistake("baseline_of_an_unknown_feature", "baselines[0].feature",
            "'demand_weak_ago' is no feature, did you mean demand_week_ago? There are demand_today",
            ("feature: demand_week_ago", "feature: demand_weak_ago")),
    Mistake("offset_that_is_no_feature", "candidates[1].offset", "did you mean demand_today?",
            (OFFSET, f"{OFFSET}\n      offset: demand_todays")),
    Mistake("scale_that_is_no_feature", "candidates[1].scale", "did you mean mean_of_week?",
            (OFFSET, f"{OFFSET}\n      scale: mean_of_weak")),
    named("slice", "evaluation.slices[0].feature",
          "evaluation: {slices: [{feature: mean_of_weak}]}"),
    Mistake("fairness_of_an_unknown_feature", "gates.fairness[0].feature", "did you mean weekday?",
            ("    min_improvement: 0.02", "    min_improvement: 0.02\n"
             "    fairness: [{feature: weekdy, max_difference: 1}]")),
    Mistake("behaviour_of_an_unknown_feature", "gates.behaviour[0].change.weekdy",
            "did you mean weekday?",
            ("    min_improvement: 0.02", "    min_improvement: 0.02\n    behaviour: "
             "[{name: b, test: invariance, change: {weekdy: {set: 1}}}]")),
    Mistake("slice_of_one_country", "overrides.NOR.evaluation.slices[0].feature",
            "did you mean mean_of_week?",
            ("    NOR:\n",
             "    NOR:\n      evaluation: {slices: [{feature: mean_of_weak}]}\n")),
    Mistake("baseline_that_is_text", "baselines[0].feature", "and this needs a number",
            ("feature: demand_week_ago", "feature: weekday"),
            features=('"weekday": tomorrow.dayofweek,', '"weekday": tomorrow.day_name(),')),
    Mistake("feature_function_that_raises", "features", "raised KeyError: 'demandd'",
            features=('days["demand"]', 'days["demandd"]')),
    Mistake("labels_that_are_no_classes", "task", "labels of classification are 0 and 1",
            (AT_TASK, "  task: classification\n", "metric: mae", "metric: auc",
             GBM, "sklearn.ensemble.HistGradientBoostingClassifier",
             "sklearn.linear_model.Ridge", "sklearn.linear_model.LogisticRegression",
             "maximum: 100000", "maximum: 1")),
    Mistake("label_time_after_validation", "split.validation_days", "the 400.0 days after which",
            features=("return made[recorded].assign(", 'return made[recorded].assign(label_time='
                      'made["event_time"] + pd.Timedelta(days=400), ')),
    Mistake("regressor_for_classes", "candidates[0].estimator", "is a regressor, and the task is",
            (AT_TASK, "  task: classification\n", "metric: mae", "metric: auc",
             "sklearn.linear_model.Ridge", "sklearn.linear_model.LogisticRegression",
             "maximum: 100000", "maximum: 1"),
            features=('"label": demand.shift(-1).to_numpy(),', YES)),
    Mistake("classifier_for_a_number", "candidates[0].estimator", "is a classifier, and the task",
            (GBM, "sklearn.ensemble.HistGradientBoostingClassifier")),
    Mistake("classifier_without_probabilities", "candidates[1].estimator", "predict_proba",
            (AT_TASK, "  task: classification\n", "metric: mae", "metric: auc",
             GBM, "sklearn.ensemble.HistGradientBoostingClassifier",
             "sklearn.linear_model.Ridge", "sklearn.svm.LinearSVC",
             "maximum: 100000", "maximum: 1"),
            features=('"label": demand.shift(-1).to_numpy(),', YES)),
    Mistake("estimator_that_is_not_there", "candidates[1].estimator", "did you mean Ridge?",
            ("sklearn.linear_model.Ridge", "sklearn.linear_model.Rigde")),
    Mistake("estimator_of_an_unknown_module", "candidates[1].estimator", "cannot be imported",
            ("sklearn.linear_model.Ridge", "sklearn.linear_models.Ridge")),
    Mistake("estimator_that_is_none", "candidates[1].estimator", "is no estimator class",
            ("sklearn.linear_model.Ridge", "sklearn.preprocessing.StandardScaler")),
    Mistake("unknown_parameter", "candidates[0].params.max_iters", "did you mean max_iter?",
            ("max_iter: 100", "max_iters: 100")),
    Mistake("parameter_of_a_nested_estimator", "candidates[1].params.regressor__alpha",
            "is no parameter of sklearn.compose.TransformedTargetRegressor",
            ("sklearn.linear_model.Ridge", "sklearn.compose.TransformedTargetRegressor\n"
             "      params: {regressor__alpha: 2}")),
    Mistake("search_of_an_unknown_parameter", "candidates[0].space.max_leafs",
            "did you mean max_leaf_nodes?",
            (PARAMS, f"{PARAMS}\n      space: {{max_leafs: {{low: 3, high: 9}}}}",
             AT_TASK, TUNING)),
    light("search_that_starts_outside", "candidates[0].space.max_iter", "the search starts at 100",
          PARAMS, f"{PARAMS}\n      space: {{max_iter: {{low: 3, high: 9}}}}", AT_TASK, TUNING),
    light("search_that_starts_at_no_choice", "candidates[0].space.max_iter", "starts at 100",
          PARAMS, f"{PARAMS}\n      space: {{max_iter: {{choices: [3, 9]}}}}", AT_TASK, TUNING),
    light("search_without_a_budget_for_its_scope", "candidates[1].space", "no trials or seconds",
          OFFSET, f"{OFFSET}\n      space: {{alpha: {{low: 1, high: 9}}}}",
          AT_TASK, f"  tuning: {{pooled_trials: 2}}\n{AT_TASK}"),
    light("key_that_is_known_later", "source.known_later[0]", "is in `key`",
          "key: [country, date]", "key: [country, date, demand]",
          "    event_time: date", "    event_time: date\n    known_later: [demand]"),
    light("slice_twice", "evaluation.slices[1].feature", "is declared twice",
          AT_TASK, "  evaluation: {slices: [{feature: month}, {feature: month}]}\n" + AT_TASK),
    light("test_that_nothing_passes", "gates.behaviour[0].at_least", "no prediction passes",
          "    min_improvement: 0.02", "    min_improvement: 0.02\n    behaviour: "
          f"[{MINIMUM}at_least: 9, at_most: 5}}]"),
    light("trained_again_within_the_cool_down", "retraining.max_age_days", "below cooldown_days 7",
          AT_TASK, f"  retraining: {{max_age_days: 3}}\n{AT_TASK}"),
]  # fmt: skip


def made(mistake: Mistake, defs: Path) -> Path:
    folder = new_product("parcels", defs)
    for file, texts in (
        ("defs.yaml", mistake.yaml),
        ("contract.py", mistake.contract),
        ("features.py", mistake.features),
    ):
        edit(folder / file, *zip(texts[::2], texts[1::2], strict=True))
    return folder


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_product_that_cannot_work_is_refused_where_it_says_so(
    mistake: Mistake, tmp_path: Path
) -> None:
    folder = made(mistake, tmp_path)

    with pytest.raises(ConfigurationError) as caught:
        require_sound(load_product(folder), thorough=mistake.thorough)

    text = str(caught.value)
    found = [line for line in text.splitlines() if f" attributes.{mistake.key}: " in line]
    assert len(found) == 1, text
    assert mistake.says in found[0], text
    assert found[0].startswith(f"  {folder.resolve() / 'defs.yaml'}:")
    assert "; expected " in found[0]
    assert "Nothing was loaded." in text
    assert "dg check defs" in text


def test_there_are_more_than_forty_of_them_with_a_name_each() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) > 40


def test_the_shipped_products_and_a_new_one_are_sound(tmp_path: Path) -> None:
    shipped = load_products(PROJECT_ROOT / "mlops_assets" / "defs")
    for product in (*shipped, load_product(new_product("parcels", tmp_path))):
        require_sound(product, thorough=True)


def test_a_product_without_a_sample_is_asked_for_its_features_on_no_rows(tmp_path: Path) -> None:
    folder = new_product("parcels", tmp_path)
    edit(folder / "defs.yaml", ("  sample: sample.generate\n", ""))
    require_sound(load_product(folder), thorough=True)
    edit(folder / "defs.yaml", ("feature: demand_week_ago", "feature: demand_weak_ago"))
    with pytest.raises(ConfigurationError, match="did you mean demand_week_ago"):
        require_sound(load_product(folder), thorough=True)


def test_what_loading_the_code_location_checks_imports_no_estimator(tmp_path: Path) -> None:
    folder = new_product("parcels", tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mlops_assets.components.loading import load_product\n"
        "from mlops_assets.components.soundness import require_sound\n"
        f"require_sound(load_product(Path({str(folder)!r})), thorough=False)\n"
        "assert not {'sklearn', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
