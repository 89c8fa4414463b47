"""Names of countries in MLflow, on a real database."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter, ValidationError

from mlops_assets.registry import Registry
from mlops_assets.registry.names import country_named, key_of_tag, registered_name, tag_name
from mlops_assets.spec.fields import Country
from mlops_assets_tests.effort import examples

PREFIX = "snapshot."
PUBLISHED = [
    "Côte d'Ivoire",
    "Bonaire, Sint Eustatius and Saba",
    "Bosnia & Herzegovina",
    "Micronesia (Fed. States of)",
    "Türkiye",
    "日本",
    "a/b",
    "../x",
    "a//b/./c",
    "..",
    "%20",
    "50%",
    ":3A",
    "~7E",
    'quo"te',
    "C:\\temp",
    "[a,b]",
    "x" * 240,
    "é" * 40,
]
_country = TypeAdapter(Country)


def allowed(key: str) -> bool:
    """Whether a product may list it."""
    try:
        return _country.validate_python(key) == key
    except ValidationError:
        return False


keys = st.text(min_size=1, max_size=80).filter(allowed)


@given(keys)
@example("..")
@example(":2E")
def test_every_country_comes_back_from_its_names(key: str) -> None:
    assert country_named(registered_name("demand", key)) == key
    assert key_of_tag(PREFIX, tag_name(PREFIX, key)) == key


@given(keys, keys)
@example("a b", "a:20b")
@example("a~2Fb", "a/b")
def test_no_two_countries_share_a_name(one: str, other: str) -> None:
    assert (tag_name(PREFIX, one) == tag_name(PREFIX, other)) == (one == other)
    same = registered_name("demand", one) == registered_name("demand", other)
    assert same == (one == other)


@settings(max_examples=examples(5))
@given(st.lists(keys, max_size=60, unique=True))
@example(PUBLISHED)
def test_mlflow_takes_the_names_of_every_country_that_may_be_listed(
    registry: Registry, listed: list[str]
) -> None:
    client = MlflowClient(registry.tracking_uri)
    tags = {tag_name(PREFIX, key): key for key in listed}
    run = client.create_run(registry.experiment("demand"), tags=tags)
    held = client.get_run(run.info.run_id).data.tags
    assert {key_of_tag(PREFIX, n): v for n, v in held.items() if n.startswith(PREFIX)} == {
        key: key for key in listed
    }


def test_countries_as_publishers_write_them_have_a_model_each(registry: Registry) -> None:
    assert [key for key in PUBLISHED if not allowed(key)] == []
    client, source = registry.client(), f"{registry.artifact_root}/none"
    for key in PUBLISHED:
        name = registered_name("odd", key)
        client.create_registered_model(name, tags={"product": "odd", "country": key})
        client.create_model_version(name, source=source, await_creation_for=0)
        client.set_registered_model_alias(name, "champion", "1")
        assert registry.version_numbers(name) == ["1"]
    assert registry.champions("odd").keys() == set(PUBLISHED)
    assert {each.champion for each in registry.aliases_of_all("odd").values()} == {"1"}
