"""The schema editors and `dg check yaml` use says what the strict reader says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dagster_shared.yaml_utils import safe_load_yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter, create_model

from mlops_assets import spec
from mlops_assets.components import schema
from mlops_assets.components.model_product import ModelProduct
from mlops_assets_tests.components.folders import YAML, spoiled
from mlops_assets_tests.components.test_wrong_configurations import KEYS, VALUES, Wrong

MODELS = [
    model
    for model in vars(spec).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.model_fields
]
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
BEYOND_A_SCHEMA = {
    "scope_twice",
    "key_missing",
    "holdout_on_30_february",
    "cron_of_six_fields",
    "cron_at_25_o_clock",
    "cron_on_30_february",
    "country_blank",
    "country_with_a_line_break",
}
"""Wrong values that only `dg check defs` finds."""


def errors_of(content: str) -> list[Any]:
    """What `dg check yaml` would find in the attributes of a file."""
    validator = Draft202012Validator(schema.attributes_schema())
    return list(validator.iter_errors(safe_load_yaml(content)["attributes"]))


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", 0))
def test_every_key_is_described_with_a_valid_example(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    assert field.description
    assert field.examples
    for example in field.examples:
        TypeAdapter(field.rebuild_annotation()).validate_python(example)


def test_the_schema_is_whole_and_has_descriptions_defaults_and_limits() -> None:
    whole = schema.attributes_schema()
    Draft202012Validator.check_schema(whole)
    assert "$ref" not in json.dumps(whole)
    share = whole["properties"]["gates"]["properties"]["min_improvement"]
    assert share["default"] == 0.0
    assert (share["minimum"], share["exclusiveMaximum"]) == (0.0, 1.0)
    assert "by which share" in share["description"]


def test_an_override_is_known_to_the_schema_with_all_keys_optional() -> None:
    country = schema.schema_of(("overrides", "FRA"))
    assert country is not None
    assert set(country["properties"]) == spec.OVERRIDABLE
    assert "required" not in country["properties"]["split"]
    assert "schema_class" not in country["properties"]["contract"]["properties"]


def test_a_right_file_keeps_the_schema() -> None:
    assert errors_of(YAML) == []


@pytest.mark.parametrize(
    "wrong",
    [w for w in VALUES + KEYS if w.key.startswith("attributes.") and w.name not in BEYOND_A_SCHEMA],
    ids=lambda wrong: wrong.name,
)
def test_a_wrong_value_breaks_the_schema_too(wrong: Wrong) -> None:
    assert errors_of(spoiled(wrong.old, wrong.new))


def test_norway_breaks_the_schema_too() -> None:
    (error,) = errors_of(YAML.replace('"NO"', "NO"))
    assert list(error.absolute_path) == ["countries", 3]


def test_the_component_has_the_schema_and_takes_what_dagster_reads() -> None:
    model = ModelProduct.get_model_cls()
    assert model.model_json_schema() == schema.attributes_schema()
    file = create_model("File", attributes=(model, ...))  # as the editor's schema is made
    assert file.model_json_schema()["$defs"]["ProductAttributes"]["properties"]
    assert model.model_validate({"countries": [False]})
