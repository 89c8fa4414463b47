"""Every wrong configuration is refused with file, line, key, what is expected and an example."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_assets.components.loading import load_product
from mlops_assets.errors import ConfigurationError
from mlops_assets_tests.components.folders import line_of, spoiled, write

RIGHT: dict[str, tuple[str, str]] = {
    "attributes.aliases.*": ("value found in the data: listed country", "aliases: {CN: CHN}"),
    "attributes.baselines.feature": ("the feature's name", "feature: price_lag_0"),
    "attributes.baselines.name": ("unique among baselines", "name: same_as_today"),
    "attributes.candidates.estimator": (
        "import path of an estimator class",
        "estimator: sklearn.ensemble.HistGradientBoostingRegressor",
    ),
    "attributes.candidates.name": ("short name, unique in the product", "name: gbm"),
    "attributes.candidates.offset": ("regression only: a feature", "offset: price_lag_0"),
    "attributes.candidates.params.*": ("a number or text", "params: {max_iter: 200}"),
    "attributes.candidates.scopes": ("one of local, region, pooled", "scopes: [local, pooled]"),
    "attributes.contract.max_rejected_share": (
        "a number at least 0.0 and at most 1.0",
        "max_rejected_share: 0.05",
    ),
    "attributes.contract.schema_class": (
        "pandera DataFrameModel of the `validated` table",
        "schema_class: contract.PowerPrice",
    ),
    "attributes.countries": ("text", "countries: [DEU, FRA]"),
    "attributes.description": ("what is predicted, for whom, when", "description: 'Next-day"),
    "attributes.features": ("as module.function", "features: features.build"),
    "attributes.gates": ("a table (limits a candidate must keep", "gates: {min_improvement: 0.02"),
    "attributes.gates.floor": ("absolute limit of the metric", "floor: 30.0"),
    "attributes.gates.max_predict_seconds": ("a number above 0.0", "max_predict_seconds: 1.0"),
    "attributes.gates.min_improvement": (
        "a number at least 0.0 and below 1.0",
        "min_improvement: 0.02",
    ),
    "attributes.resources.large_seconds": (
        "newest full run took longer is large",
        "large_seconds: 600.0",
    ),
    "attributes.resources.sizes.*": ("countries whose size is set here", "sizes: {DEU: large}"),
    "attributes.regions.*": ("named groups of countries", "regions: {nordic: [DNK"),
    "attributes.candidates.space": ("parameters to search", "space: {max_leaf_nodes: {"),
    "attributes.candidates.space.*.low": ("smallest value", "low: 7"),
    "attributes.evaluation.slices.edges": ("where one part ends", "edges: [7, 30, 90]"),
    "attributes.gates.fairness.max_difference": ("a number above 0.0", "max_difference: 0.1"),
    "attributes.gates.switched_off": ("gates that are switched off", "switched_off: {stability:"),
    "attributes.gates.behaviour.expect": ("one of higher, lower", "expect: lower"),
    "attributes.gates.behaviour.change.*.set": ("its new value", "set: 0"),
    "attributes.gates.behaviour": ("behavioural tests", "behaviour: [{change:"),
    "attributes.decision.level": ("above 0.0 and below 0.5", "level: 0.05"),
    "attributes.metric": ("one of mae, rmse, auc, log_loss, brier", "metric: mae"),
    "attributes.overrides.*": ("values that differ in one country", "overrides: {MNE: {split:"),
    "attributes.overrides.*.contract": (
        "the table's contract",
        "contract: {max_rejected_share: 0.05}",
    ),
    "attributes.owners": ("e-mail addresses, or teams as team:name", "owners: ['team:energy']"),
    "attributes.predictions.maximum": ("largest valid prediction", "maximum: 4000.0"),
    "attributes.predictions.minimum": ("smallest valid prediction", "minimum: -500.0"),
    "attributes.retention.as_of_days": ("a whole number at least 1", "as_of_days: 90"),
    "attributes.retrain_cron": ("cron (UTC) after which every country", "retrain_cron: 0 4 * * 1"),
    "attributes.sample": ("seeded generator of demonstration data", "sample: sample.generate"),
    "attributes.seed": ("a whole number at least 0", "seed: 0"),
    "attributes.source.arrival_time": ("values were published", "arrival_time: published_at"),
    "attributes.source.columns.*": ("contract column: column as published", "columns: {price:"),
    "attributes.source.country": ("the contract column that holds the country", "country: country"),
    "attributes.source.derived": ("computes from others", "derived: [booking_date]"),
    "attributes.source.event_time": ("the contract column with the time", "event_time: date"),
    "attributes.source.key": ("that identify a record", "key: [country, date]"),
    "attributes.source.delivery": ("one of increment, full", "delivery: increment"),
    "attributes.source.http": ("for kind http, and only for it", "http: {urls: ['https://"),
    "attributes.source.http.attempts": ("at least 1 and at most 20", "attempts: 4"),
    "attributes.source.http.header_env.*": ("environment variable", "header_env: {Authorization: "),
    "attributes.source.http.urls": ("text", "urls: ['https://example.org/prices.csv']"),
    "attributes.source.kind": ("one of files, sql, http", "kind: files"),
    "attributes.source.known_later": ("not known at the event time", "known_later: [is_canceled]"),
    "attributes.source.poll_every": ("how often the landing sensor asks", "poll_every: 1h"),
    "attributes.source.settle_seconds": ("a number at least 0.0", "settle_seconds: 2.0"),
    "attributes.source.sql": ("for kind sql, and only for it", "sql: {query: select * from"),
    "attributes.source.sql.query": ("as a SELECT", "query: select * from bookings"),
    "attributes.source.sql.url": (
        "without a password",
        "url: 'postgresql://reader@warehouse/sales'",
    ),
    "attributes.source.sql.url_env": ("environment variable", "url_env: WAREHOUSE_URL"),
    "attributes.split.holdout_from": ("a date (YYYY-MM-DD)", "holdout_from: '2025-01-01'"),
    "attributes.split.holdout_days": ("a whole number at least 1", "holdout_days: 365"),
    "attributes.split.train_days": ("a whole number at least 1", "train_days: 2190"),
    "attributes.split.refit": ("true or false", "refit: true"),
    "attributes.split.min_train_rows": ("a whole number at least 1", "min_train_rows: 500"),
    "attributes.split.train_from": ("a date (YYYY-MM-DD)", "train_from: '2019-01-01'"),
    "attributes.split.validation_days": ("a whole number at least 1", "validation_days: 90"),
    "attributes.target.matures_after": ("time from the event until", "matures_after: 1d"),
    "attributes.target.unit": ("text that is not empty", "unit: EUR/MWh"),
    "attributes.task": ("one of regression, classification", "task: regression"),
    "type": ("the component's import path", "type: mlops_assets.components.ModelProduct"),
}
"""Key: what every message about it says is expected, and its example."""


@dataclass(frozen=True)
class Wrong:
    """One place spoiled, and what the message says about it.

    Args:
        name: of the case.
        old: text of the right file.
        new: what stands there instead.
        key: dotted path the message names; its last name may be one that is not known.
        says: what was found, and what is wrong with it.
        line: text that starts in the line the message names; default: `new`.
        right: the entry of `RIGHT` that holds, where it is not that of `key`.
        expected: what is expected, where it differs from `RIGHT`.
    """

    name: str
    old: str
    new: str
    key: str
    says: str
    line: str = ""
    right: str = ""
    expected: str = ""


A = "attributes"
SECRET = "hunter2"
NORWAY = '    - "NO"'
CRON = "retrain_cron: 0 4 * * 1"
HOLDOUT = 'holdout_from: "2025-01-01"'
GATES = "gates:\n    min_improvement: 0.02\n    floor: 30\n    max_predict_seconds: 1.0"
SQL = "kind: sql\n    sql: {query: select 1, "
HTTP = "kind: http\n    http: {urls: ["
FRANCE = "    FRA:\n      split:\n        min_train_rows: 200\n      metric: rmse"

VALUES = [
    Wrong(
        "share_as_text",
        "share: 0.1",
        'share: "0.1"',
        f"{A}.contract.max_rejected_share",
        '"0.1" (text)',
    ),
    Wrong(
        "share_over_one",
        "share: 0.1",
        "share: 5",
        f"{A}.contract.max_rejected_share",
        "5 (a number)",
    ),
    Wrong(
        "share_as_boolean",
        "share: 0.1",
        "share: true",
        f"{A}.contract.max_rejected_share",
        "true (a boolean)",
    ),
    Wrong(
        "rows_with_a_fraction",
        "rows: 500",
        "rows: 500.5",
        f"{A}.split.min_train_rows",
        "500.5 (a number)",
    ),
    Wrong(
        "rows_as_boolean",
        "rows: 500",
        "rows: true",
        f"{A}.split.min_train_rows",
        "true (a boolean)",
    ),
    Wrong("no_rows", "rows: 500", "rows: 0", f"{A}.split.min_train_rows", "0 (a number)"),
    Wrong(
        "no_day_of_retention",
        CRON,
        f"retention: {{as_of_days: 0}}\n  {CRON}",
        f"{A}.retention.as_of_days",
        "0 (a number)",
        "  retention:",
    ),
    Wrong(
        "improvement_of_all",
        "improvement: 0.02",
        "improvement: 1.0",
        f"{A}.gates.min_improvement",
        "1.0 (a number)",
    ),
    Wrong(
        "improvement_negative",
        "improvement: 0.02",
        "improvement: -0.1",
        f"{A}.gates.min_improvement",
        "-0.1 (a number)",
    ),
    Wrong(
        "no_time_to_predict",
        "seconds: 1.0",
        "seconds: 0",
        f"{A}.gates.max_predict_seconds",
        "0 (a number)",
    ),
    Wrong("seed_negative", "seed: 7", "seed: -7", f"{A}.seed", "-7 (a number)"),
    Wrong("owner_as_number", "team:energy", "12", f"{A}.owners[0]", "12 (a number)", "- 12"),
    Wrong("unit_left_out", "unit: EUR/MWh", "unit:", f"{A}.target.unit", "found nothing"),
    Wrong("unit_empty", "unit: EUR/MWh", 'unit: ""', f"{A}.target.unit", '"" (text)'),
    Wrong("section_as_text", GATES, "gates: strict", f"{A}.gates", "strict (text)"),
    Wrong("section_as_list", GATES, "gates: [0.02]", f"{A}.gates", "a list of 1"),
    Wrong("list_as_text", "key: [country, date]", "key: date", f"{A}.source.key", "date (text)"),
    Wrong("list_empty", "key: [country, date]", "key: []", f"{A}.source.key", "a list of 0"),
    Wrong(
        "parameter_as_list",
        "max_iter: 200",
        "max_iter: [200]",
        f"{A}.candidates[0].params.max_iter",
        "a list of 1",
        right=f"{A}.candidates.params.*",
    ),
    Wrong(
        "task_misspelt",
        "task: regression",
        "task: regresion",
        f"{A}.task",
        "regresion (text), did you mean regression?",
    ),
    Wrong("metric_unknown", "metric: mae", "metric: mape", f"{A}.metric", "mape (text)"),
    Wrong(
        "scope_unknown",
        "[local, pooled]",
        "[local, pool]",
        f"{A}.candidates[0].scopes[1]",
        "pool (text), did you mean pooled?",
    ),
    Wrong(
        "scope_twice",
        "[local, pooled]",
        "[local, local]",
        f"{A}.candidates[0].scopes",
        "local is listed more than once",
        expected="a list with at least 1 item",
    ),
    Wrong("source_of_unknown_kind", "kind: files", "kind: ftp", f"{A}.source.kind", "ftp (text)"),
    Wrong(
        "holdout_in_another_notation",
        HOLDOUT,
        "holdout_from: 01.01.2025",
        f"{A}.split.holdout_from",
        "'01.01.2025' is not a date",
    ),
    Wrong(
        "holdout_on_30_february",
        HOLDOUT,
        "holdout_from: 2025-02-30",
        f"{A}.split.holdout_from",
        "'2025-02-30' is not a day of the calendar",
    ),
    Wrong(
        "holdout_with_a_time",
        HOLDOUT,
        "holdout_from: 2025-01-01 10:00:00",
        f"{A}.split.holdout_from",
        "is not a date",
    ),
    Wrong(
        "maturity_in_months",
        "after: 1d",
        "after: 1 month",
        f"{A}.target.matures_after",
        "'1 month' is not a number and h, d or w",
    ),
    Wrong(
        "owner_neither_mail_nor_team",
        "team:energy",
        "energy",
        f"{A}.owners[0]",
        "'energy' is not an e-mail address or team:name",
        "- energy",
    ),
    Wrong(
        "candidate_in_capitals",
        "name: gbm",
        "name: GBM",
        f"{A}.candidates[0].name",
        "'GBM' is not a lower-case name",
    ),
    Wrong(
        "estimator_without_module",
        "sklearn.linear_model.Ridge",
        "Ridge",
        f"{A}.candidates[1].estimator",
        "'Ridge' is not an import path",
        "estimator: Ridge",
    ),
    Wrong(
        "cron_of_six_fields",
        CRON,
        "retrain_cron: 0 0 4 * * 1",
        f"{A}.retrain_cron",
        "has 6 fields; cron has 5",
    ),
    Wrong(
        "cron_at_25_o_clock",
        CRON,
        "retrain_cron: 0 25 * * 1",
        f"{A}.retrain_cron",
        "hour (0 to 23)",
    ),
    Wrong(
        "cron_on_30_february",
        CRON,
        "retrain_cron: 0 4 30 2 *",
        f"{A}.retrain_cron",
        "February has no such day",
    ),
    Wrong("country_blank", NORWAY, '    - " "', f"{A}.countries[3]", "is empty"),
    Wrong(
        "country_with_a_line_break",
        NORWAY,
        '    - "N\\nO"',
        f"{A}.countries[3]",
        "control characters",
    ),
]

KEYS = [
    Wrong(
        "unknown_section",
        "seed: 7",
        "sed: 7",
        f"{A}.sed",
        "did you mean `seed`?",
        right=f"{A}.seed",
        expected="one of the keys description, owners",
    ),
    Wrong(
        "unknown_key_in_a_section",
        "min_improvement: 0.02",
        "min_improvment: 0.02",
        f"{A}.gates.min_improvment",
        "did you mean `min_improvement`?",
        right=f"{A}.gates.min_improvement",
        expected="one of the keys min_improvement, floor",
    ),
    Wrong(
        "unknown_key_in_a_list",
        "  offset: price_lag_0",
        "  ofset: price_lag_0",
        f"{A}.candidates[0].ofset",
        "did you mean `offset`?",
        right=f"{A}.candidates.offset",
        expected="one of the keys name, estimator",
    ),
    Wrong(
        "key_in_the_wrong_section",
        "seed: 7",
        "floor: 5",
        f"{A}.floor",
        "which belongs under `gates`",
        right=f"{A}.gates.floor",
        expected="one of the keys description",
    ),
    Wrong(
        "unknown_key_of_the_file",
        "attributes:\n",
        "atributes: 1\nattributes:\n",
        "atributes",
        "did you mean `attributes`?",
        "atributes: 1",
        right="type",
        expected="one of the keys type, attributes",
    ),
    Wrong(
        "section_missing", "  metric: mae\n", "", f"{A}.metric", "no key `metric`", "attributes:"
    ),
    Wrong(
        "key_missing",
        f"    {HOLDOUT}\n",
        "",
        f"{A}.split.holdout_from",
        "either `holdout_from` or `holdout_days` is needed",
        "  split:\n    train_from",
    ),
    Wrong(
        "key_missing_in_a_list",
        "\n      estimator: sklearn.linear_model.Ridge",
        "",
        f"{A}.candidates[1].estimator",
        "no key `estimator`",
        "- name: ridge",
    ),
    Wrong(
        "type_missing",
        "type: mlops_assets.components.ModelProduct\n",
        "",
        "type",
        "found nothing",
        "attributes:",
    ),
    Wrong(
        "type_without_module",
        "mlops_assets.components.ModelProduct",
        "ModelProduct",
        "type",
        "ModelProduct (text)",
        "type: ModelProduct",
    ),
    Wrong(
        "attributes_as_list",
        "attributes:\n",
        "attributes: []\nrequirements:\n",
        A,
        "a list of 0",
        "attributes: []",
        right=f"{A}.description",
        expected="a table with the keys description, owners",
    ),
    Wrong(
        "template_variables",
        "attributes:\n",
        "template_vars_module: .v\nattributes:\n",
        "template_vars_module",
        "the key `template_vars_module`",
        "template_vars_module: .v",
        right="type",
        expected="no templates",
    ),
]

MEANINGS = [
    Wrong(
        "norway_unquoted",
        NORWAY,
        "    - NO",
        f"{A}.countries[3]",
        "unquoted NO, which is read as false",
        expected='write "NO"',
    ),
    Wrong(
        "country_on",
        NORWAY,
        "    - on",
        f"{A}.countries[3]",
        "unquoted on, which is read as true",
        expected='write "on"',
    ),
    Wrong(
        "alias_from_norway",
        "CN: CHN",
        "NO: CHN",
        f"{A}.aliases.NO",
        "the unquoted key NO, which is read as false",
        right=f"{A}.aliases.*",
        expected='write "NO"',
    ),
    Wrong(
        "alias_from_a_number",
        "CN: CHN",
        "156: CHN",
        f"{A}.aliases.156",
        "the unquoted key 156",
        right=f"{A}.aliases.*",
        expected='write "156"',
    ),
    Wrong(
        "unit_yes",
        "unit: EUR/MWh",
        "unit: yes",
        f"{A}.target.unit",
        "unquoted yes, which is read as true",
        expected='write "yes"',
    ),
    Wrong(
        "unit_octal",
        "unit: EUR/MWh",
        "unit: 010",
        f"{A}.target.unit",
        "unquoted 010, which is read as a number in another notation",
        expected='write "010"',
    ),
    Wrong(
        "unit_sexagesimal",
        "unit: EUR/MWh",
        "unit: 1:30",
        f"{A}.target.unit",
        "unquoted 1:30, which is read as a number in another notation",
        expected='"1:30"',
    ),
    Wrong(
        "rows_with_underscores",
        "rows: 500",
        "rows: 5_000",
        f"{A}.split.min_train_rows",
        "unquoted 5_000",
        expected="a whole number in plain digits, such as 1000",
    ),
    Wrong(
        "floor_not_finite",
        "floor: 30",
        "floor: .inf",
        f"{A}.gates.floor",
        "unquoted .inf",
        expected="a finite number",
    ),
    Wrong(
        "floor_in_short_notation",
        "floor: 30",
        "floor: 3e1",
        f"{A}.gates.floor",
        "read as text by some programs and a number by others",
        expected="1.0e-3",
    ),
    Wrong(
        "template",
        "unit: EUR/MWh",
        'unit: "{{ env.UNIT }}"',
        f"{A}.target.unit",
        "a template",
        expected="templates are not filled in here",
    ),
    Wrong(
        "key_twice",
        "metric: mae",
        "metric: mae\n  metric: rmse\n",
        f"{A}.metric",
        "the key `metric` again; it stands in line 33 already",
        "metric: rmse\n\n",
        expected="every key once",
    ),
    Wrong(
        "half_a_character",
        "unit: EUR/MWh",
        'unit: "\\ud800"',
        f"{A}.target.unit",
        "half a surrogate pair",
        expected="whole characters",
    ),
]

RULES = [
    Wrong(
        "metric_of_another_task",
        "metric: mae",
        "metric: auc",
        f"{A}.metric",
        "auc is not a metric of regression; its metrics are mae, rmse",
    ),
    Wrong(
        "country_twice",
        NORWAY,
        "    - FRA",
        f"{A}.countries[3]",
        "'FRA' is listed more than once",
        "    - FRA\n  aliases",
    ),
    Wrong(
        "alias_to_nowhere",
        "CN: CHN",
        "CN: CHINA",
        f"{A}.aliases.CN",
        "stands for 'CHINA', which is not a listed country",
        right=f"{A}.aliases.*",
    ),
    Wrong(
        "alias_that_is_a_country",
        "CN: CHN",
        "DEU: CHN",
        f"{A}.aliases.DEU",
        "'DEU' is a listed country itself",
        right=f"{A}.aliases.*",
    ),
    Wrong(
        "country_column_unknown",
        "    country: country",
        "    country: land",
        f"{A}.source.country",
        "'land' is not a key of source.columns (country, date, price)",
    ),
    Wrong(
        "key_column_unknown",
        "key: [country, date]",
        "key: [country, day]",
        f"{A}.source.key[1]",
        "'day' is not a key of source.columns",
        expected="text",
    ),
    Wrong(
        "event_time_unknown",
        "event_time: date",
        "event_time: Date",
        f"{A}.source.event_time",
        "'Date' is not a key of source.columns",
    ),
    Wrong(
        "known_later_unknown",
        "known_later: []",
        "known_later: [label]",
        f"{A}.source.known_later[0]",
        "'label' is not a key of source.columns",
    ),
    Wrong(
        "event_time_known_later",
        "known_later: []",
        "known_later: [date]",
        f"{A}.source.known_later",
        "'date' is known with the record, not later",
    ),
    Wrong(
        "derived_though_published",
        "known_later: []",
        "derived: [price]",
        f"{A}.source.derived[0]",
        "'price' is published, so it is not derived",
    ),
    Wrong(
        "country_derived",
        "    country: country\n",
        "    country: land\n    derived: [land]\n",
        f"{A}.source.country",
        "'land' is not a key of source.columns",
    ),
    Wrong(
        "published_name_twice",
        "price: Price (EUR/MWhe)",
        "price: Date",
        f"{A}.source.columns.price",
        "'Date' is given to more than one contract column",
        right=f"{A}.source.columns.*",
    ),
    Wrong(
        "candidate_name_twice",
        "name: ridge",
        "name: gbm",
        f"{A}.candidates[1].name",
        "the name 'gbm' is given to more than one",
        "- name: gbm\n      estimator: sklearn.lin",
    ),
    Wrong(
        "baseline_name_of_a_candidate",
        "name: ridge",
        "name: average",
        f"{A}.candidates[1].name",
        "the name 'average' is given to more than one",
        "- name: average\n      est",
    ),
    Wrong(
        "baseline_without_its_feature",
        "      feature: price_lag_0\n",
        "",
        f"{A}.baselines[0].feature",
        "`feature` goes with rule: feature",
        "name: same_as_today",
    ),
    Wrong(
        "baseline_with_a_feature_too_many",
        "rule: mean",
        "rule: mean\n      feature: lag",
        f"{A}.baselines[1].feature",
        "`feature` goes with rule: feature",
        "feature: lag",
    ),
    Wrong(
        "holdout_of_a_date_and_of_days",
        HOLDOUT,
        f"{HOLDOUT}\n    holdout_days: 90",
        f"{A}.split.holdout_from",
        "either `holdout_from` or `holdout_days` is needed",
        HOLDOUT,
    ),
    Wrong(
        "training_from_a_date_and_by_days",
        HOLDOUT,
        f"{HOLDOUT}\n    train_days: 900",
        f"{A}.split.train_days",
        "do not go together",
        "train_days",
    ),
    Wrong(
        "days_of_training_that_are_all_for_validation",
        "train_from: 2019-01-01",
        "train_days: 90",
        f"{A}.split.train_days",
        "train_days 90 less validation_days 90 leaves no history",
    ),
    Wrong(
        "refit_of_a_pooled_model_in_one_country",
        FRANCE,
        "    FRA:\n      split:\n        refit: true",
        f"{A}.overrides.FRA.split.refit",
        "`refit` is the same in all of them",
        "refit: true",
        right=f"{A}.split.refit",
    ),
    Wrong(
        "holdout_longer_than_the_history",
        "validation_days: 90",
        "validation_days: 2193",
        f"{A}.split.holdout_from",
        "leaves no history to train on",
        HOLDOUT,
    ),
    Wrong(
        "validation_before_all_time",
        HOLDOUT,
        "holdout_from: 0001-02-01",
        f"{A}.split.validation_days",
        "is before all dates",
        "validation_days",
    ),
    Wrong(
        "predictions_upside_down",
        "minimum: -500",
        "minimum: 5000",
        f"{A}.predictions.minimum",
        "minimum 5000.0 is not below maximum 4000.0",
    ),
    Wrong(
        "floor_that_says_nothing",
        "floor: 30",
        "floor: -30",
        f"{A}.gates.floor",
        "mae is always not negative",
    ),
    Wrong(
        "offset_in_classification",
        "task: regression\n",
        "task: classification\n",
        f"{A}.candidates[0].offset",
        "offset is for regression only",
        "  offset:",
    ),
    Wrong(
        "probability_over_one",
        "task: regression\n",
        "task: classification\n",
        f"{A}.predictions.maximum",
        "4000.0 is no probability",
        "maximum: 4000",
    ),
    Wrong(
        "override_of_an_unlisted_country",
        "    FRA:\n",
        "    MNE:\n",
        f"{A}.overrides.MNE",
        "'MNE' is not a listed country",
        "    MNE:",
        right=f"{A}.overrides.*",
    ),
    Wrong(
        "override_of_what_cannot_differ",
        FRANCE,
        "    FRA:\n      task: regression",
        f"{A}.overrides.FRA.task",
        "'task' cannot differ in one country",
        "      task: regression",
        right=f"{A}.overrides.*",
    ),
    Wrong(
        "override_of_the_contract_class",
        FRANCE,
        "    FRA:\n      contract:\n        schema_class: contract.Other",
        f"{A}.overrides.FRA.contract.schema_class",
        "one table has one contract",
        "schema_class: contract.Other",
        right=f"{A}.overrides.*.contract",
    ),
    Wrong(
        "override_with_an_unknown_key",
        "rows: 200",
        "rws: 200",
        f"{A}.overrides.FRA.split.min_train_rws",
        "did you mean `min_train_rows`?",
        right=f"{A}.split.min_train_rows",
        expected="one of the keys train_from",
    ),
    Wrong(
        "override_of_a_wrong_type",
        "rows: 200",
        'rows: "200"',
        f"{A}.overrides.FRA.split.min_train_rows",
        '"200" (text)',
        right=f"{A}.split.min_train_rows",
    ),
    Wrong(
        "override_that_breaks_a_rule",
        "metric: rmse",
        "metric: brier",
        f"{A}.overrides.FRA.metric",
        "brier is not a metric of regression",
        right=f"{A}.metric",
    ),
    Wrong(
        "override_that_contradicts_the_product",
        FRANCE,
        "    FRA:\n      split:\n        train_from: 2024-12-31",
        f"{A}.overrides.FRA.split.holdout_from",
        "leaves no history to train on",
        "      split:\n        train_from: 2024",
        right=f"{A}.split.holdout_from",
    ),
    Wrong(
        "override_as_text",
        FRANCE,
        "    FRA: none",
        f"{A}.overrides.FRA",
        "none (text)",
        right=f"{A}.overrides.*",
    ),
]

SOURCES = [
    Wrong(
        "sql_without_its_section",
        "kind: files",
        "kind: sql",
        f"{A}.source.sql",
        "`sql` goes with kind: sql",
        "  source:",
    ),
    Wrong(
        "section_of_another_kind",
        "kind: files",
        f"{SQL}url: sqlite:///x.db}}\n    http: {{urls: [https://h/x.csv]}}",
        f"{A}.source.http",
        "`http` goes with kind: http, and only with it",
        "    http:",
    ),
    Wrong(
        "password_in_a_database_url",
        "kind: files",
        f"{SQL}url: 'postgresql://me:{SECRET}@host/db'}}",
        f"{A}.source.sql.url",
        "the URL has a password, which would be shown and stored; use `url_env`",
        "    sql:",
    ),
    Wrong(
        "password_as_a_parameter",
        "kind: files",
        f"{SQL}url: 'postgresql://host/db?password={SECRET}'}}",
        f"{A}.source.sql.url",
        "the URL has a password",
        "    sql:",
    ),
    Wrong(
        "database_of_another_make",
        "kind: files",
        f"{SQL}url: 'mysql://me@host/db'}}",
        f"{A}.source.sql.url",
        "does not start with one of duckdb, sqlite, postgresql",
        "    sql:",
    ),
    Wrong(
        "two_databases",
        "kind: files",
        f"{SQL}url: sqlite:///x.db, url_env: X}}",
        f"{A}.source.sql.url",
        "one of `url` and `url_env` is needed",
        "    sql:",
    ),
    Wrong(
        "no_database",
        "kind: files",
        SQL.removesuffix(", ") + "}",
        f"{A}.source.sql.url",
        "one of `url` and `url_env` is needed",
        "    sql:",
    ),
    Wrong(
        "variable_with_a_dollar",
        "kind: files",
        f"{SQL}url_env: $X}}",
        f"{A}.source.sql.url_env",
        "'$X' is not a name of an environment variable",
        "    sql:",
    ),
    Wrong(
        "query_missing",
        "kind: files",
        "kind: sql\n    sql: {url_env: X}",
        f"{A}.source.sql.query",
        "no key `query`",
        "    sql:",
    ),
    Wrong(
        "whole_history_by_watermark",
        "kind: files",
        f"{SQL}url_env: X, watermark: id}}\n    delivery: full",
        f"{A}.source.delivery",
        "with a watermark it is not",
        "    delivery:",
    ),
    Wrong(
        "address_of_another_protocol",
        "kind: files",
        f"{HTTP}ftp://h/x.csv]}}",
        f"{A}.source.http.urls[0]",
        "it is not an address such as https://",
        "    http:",
    ),
    Wrong(
        "address_with_a_password",
        "kind: files",
        f"{HTTP}'https://me:{SECRET}@h/x.csv']}}",
        f"{A}.source.http.urls[0]",
        "it has a user or password, which would be shown and stored; use `header_env`",
        "    http:",
    ),
    Wrong(
        "address_without_a_name",
        "kind: files",
        f"{HTTP}https://h/]}}",
        f"{A}.source.http.urls[0]",
        "end the address with a # and a name",
        "    http:",
    ),
    Wrong(
        "two_files_of_one_name",
        "kind: files",
        f"{HTTP}https://h/1/x.csv, https://h/2/x.csv]}}",
        f"{A}.source.http.urls[1]",
        "more than one file lands as 'x.csv'; end the address with a # and another name",
        "    http:",
    ),
    Wrong(
        "no_attempt",
        "kind: files",
        f"{HTTP}https://h/x.csv], attempts: 0}}",
        f"{A}.source.http.attempts",
        "0 (a number)",
        "    http:",
    ),
    Wrong(
        "header_with_a_blank",
        "kind: files",
        f"{HTTP}https://h/x.csv], header_env: {{X Key: X}}}}",
        f"{A}.source.http.header_env.X Key.[key]",
        "'X Key' is not a name of an HTTP header",
        "    http:",
        right=f"{A}.source.http.header_env.*",
    ),
    Wrong(
        "delivery_unknown",
        "kind: files",
        "kind: files\n    delivery: all",
        f"{A}.source.delivery",
        "all (text)",
        "    delivery:",
    ),
    Wrong(
        "poll_by_the_minute",
        "kind: files",
        "kind: files\n    poll_every: 5m",
        f"{A}.source.poll_every",
        "'5m' is not a number and h, d or w",
        "    poll_every:",
    ),
    Wrong(
        "settled_before_it_changed",
        "kind: files",
        "kind: files\n    settle_seconds: -1",
        f"{A}.source.settle_seconds",
        "-1 (a number)",
        "    settle_seconds:",
    ),
    Wrong(
        "arrival_time_unknown",
        "known_later: []",
        "arrival_time: published",
        f"{A}.source.arrival_time",
        "'published' is not a key of source.columns",
    ),
]

REFERENCES = [
    Wrong(
        "contract_not_in_its_module",
        "contract.Price",
        "contract.Prise",
        f"{A}.contract.schema_class",
        "has no class Prise; it has Price; did you mean contract",
    ),
    Wrong(
        "contract_that_is_a_function",
        "contract.Price",
        "features.build",
        f"{A}.contract.schema_class",
        "is no class",
        "schema_class: features.build",
    ),
    Wrong(
        "contract_without_module",
        "contract.Price",
        "Price",
        f"{A}.contract.schema_class",
        "'Price' is not an import path",
        "schema_class: Price",
    ),
    Wrong(
        "feature_module_missing",
        "features: features.build",
        "features: feature.build",
        f"{A}.features",
        "has no module feature; it has contract, features, sample",
    ),
    Wrong(
        "feature_function_missing",
        "features: features.build",
        "features: features.make",
        f"{A}.features",
        "has no function make; it has build",
    ),
    Wrong(
        "sample_function_missing",
        "sample.generate",
        "sample.make",
        f"{A}.sample",
        "has no function make; it has generate",
        "sample: sample.make",
    ),
]

EVIDENCE = [
    Wrong(
        "size_of_an_unlisted_country",
        "  task: regression\n",
        "  resources: {sizes: {MNE: large}}\n  task: regression\n",
        f"{A}.resources.sizes.MNE",
        "'MNE' is not a listed country",
        "resources: {sizes: {MNE: large}}",
        right=f"{A}.resources.sizes.*",
    ),
    Wrong(
        "large_before_medium",
        "  task: regression\n",
        "  resources: {medium_seconds: 60.0, large_seconds: 30.0}\n  task: regression\n",
        f"{A}.resources.large_seconds",
        "30 is below medium_seconds, 60",
        "resources: {medium_seconds: 60.0, large_seconds: 30.0}",
    ),
    Wrong(
        "region_of_an_unlisted_country",
        "  task: regression\n",
        "  regions: {north: [MNE]}\n  task: regression\n",
        f"{A}.regions.north[0]",
        "'MNE' is not a listed country",
        "regions: {north: [MNE]}",
        right=f"{A}.regions.*",
    ),
    Wrong(
        "country_in_two_regions",
        "  task: regression\n",
        "  regions: {north: [DEU], south: [FRA, DEU]}\n  task: regression\n",
        f"{A}.regions.south[1]",
        "'DEU' is in region 'north' already",
        "regions: {north: [DEU], south: [FRA, DEU]}",
        right=f"{A}.regions.*",
    ),
    Wrong(
        "regional_without_regions",
        "scopes: [local, pooled]",
        "scopes: [local, region]",
        f"{A}.candidates[0].scopes",
        "needs `regions`",
        expected="a list with at least 1 item",
    ),
    Wrong(
        "search_without_a_budget",
        "  offset: price_lag_0",
        "  offset: price_lag_0\n      space: {max_iter: {low: 50, high: 400}}",
        f"{A}.candidates[0].space",
        "needs a budget",
        "space: {max_iter: {low: 50, high: 400}}",
    ),
    Wrong(
        "empty_search_range",
        "  offset: price_lag_0",
        "  offset: price_lag_0\n      space: {max_iter: {low: 50, high: 50}}",
        f"{A}.candidates[0].space.max_iter.low",
        "low 50 is not below high",
        "space: {max_iter: {low: 50, high: 50}}",
        right=f"{A}.candidates.space.*.low",
    ),
    Wrong(
        "logarithm_of_zero",
        "  offset: price_lag_0",
        "  offset: price_lag_0\n      space: {max_iter: {low: 0, high: 50, log: true}}",
        f"{A}.candidates[0].space.max_iter.low",
        "log needs a low above 0",
        "space: {max_iter: {low: 0, high: 50, log: true}}",
        right=f"{A}.candidates.space.*.low",
    ),
    Wrong(
        "edges_not_ascending",
        "  task: regression\n",
        "  evaluation: {slices: [{feature: price_lag_0, edges: [50, 10]}]}\n  task: regression\n",
        f"{A}.evaluation.slices[0].edges",
        "are not ascending",
        "evaluation:",
    ),
    Wrong(
        "fairness_without_a_limit",
        "    floor: 30\n",
        "    floor: 30\n    fairness: [{feature: price_lag_0}]\n",
        f"{A}.gates.fairness[0].max_difference",
        "one of `max_difference` and `min_ratio` is needed",
        "fairness:",
    ),
    Wrong(
        "unknown_gate_switched_off",
        "    floor: 30\n",
        "    floor: 30\n    switched_off: {slice: too few rows}\n",
        f"{A}.gates.switched_off",
        "there is no gate 'slice'; there are beats_baseline",
        "switched_off:",
    ),
    Wrong(
        "direction_without_expectation",
        "    floor: 30\n",
        "    floor: 30\n    behaviour: "
        "[{name: up, test: direction, change: {price_lag_0: {add: 1}}}]\n",
        f"{A}.gates.behaviour[0].expect",
        "goes with test: direction",
        "behaviour:",
    ),
    Wrong(
        "two_changes_of_one_feature",
        "    floor: 30\n",
        "    floor: 30\n    behaviour: "
        "[{name: up, test: invariance, change: {price_lag_0: {add: 1, set: 2}}}]\n",
        f"{A}.gates.behaviour[0].change.price_lag_0.set",
        "exactly one of",
        "behaviour:",
        right=f"{A}.gates.behaviour.change.*.set",
    ),
    Wrong(
        "behavioural_test_named_twice",
        "    floor: 30\n",
        "    floor: 30\n    behaviour: "
        "[{name: up, test: invariance, change: {price_lag_0: {add: 1}}},"
        " {name: up, test: invariance, change: {price_lag_0: {add: 2}}}]\n",
        f"{A}.gates.behaviour",
        "'up' is given to more than one",
        "behaviour:",
    ),
    Wrong(
        "level_of_a_coin",
        "  task: regression\n",
        "  decision: {level: 0.5}\n  task: regression\n",
        f"{A}.decision.level",
        "found 0.5",
        "decision:",
    ),
]

EVERY = [*VALUES, *KEYS, *MEANINGS, *RULES, *EVIDENCE, *SOURCES, *REFERENCES]


@pytest.mark.parametrize("wrong", EVERY, ids=lambda wrong: wrong.name)
def test_a_wrong_configuration_is_refused_where_it_stands(wrong: Wrong, tmp_path: Path) -> None:
    content = spoiled(wrong.old, wrong.new)
    folder = write(tmp_path / "power_price", content)
    expected, example = RIGHT[_without_places(wrong.right or wrong.key)]

    with pytest.raises(ConfigurationError) as caught:
        load_product(folder)

    line = line_of(wrong.line or wrong.new, content)
    told = f"  {folder.resolve() / 'defs.yaml'}:{line}: {wrong.key}: "
    found = [text for text in str(caught.value).splitlines() if text.startswith(told)]
    assert len(found) == 1, str(caught.value)
    assert wrong.says in found[0]
    assert (wrong.expected or expected) in found[0].partition("; expected ")[2]
    assert f" Example: {example}" in found[0]
    assert "Nothing was loaded." in str(caught.value)
    assert SECRET not in str(caught.value)
    assert wrong.key in {problem["key"] for problem in caught.value.culprits["problems"]}


def test_each_case_has_a_name_of_its_own() -> None:
    names = [wrong.name for wrong in EVERY]
    assert len(names) == len(set(names))
    assert len(names) > 90


def _without_places(key: str) -> str:
    return re.sub(r"\[\d+\]", "", key)
