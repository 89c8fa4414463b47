"""The examples in the guide to sources are sections that load."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mlops_assets.spec import ProductSpec, SourceSpec
from mlops_assets_tests.components.folders import YAML
from mlops_assets_tests.reference import ROOT

GUIDE = ROOT / "docs" / "guide" / "sources.md"


def test_every_example_of_a_source_is_right_once_it_has_columns() -> None:
    product: dict[str, Any] = yaml.safe_load(YAML)["attributes"]
    columns = {name: value for name, value in product["source"].items() if name != "kind"}
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    examples = [yaml.safe_load(block)["source"] for block in blocks]
    assert [example["kind"] for example in examples] == ["files", "sql", "sql", "http"]
    for example in examples:
        spec = ProductSpec.model_validate(product | {"source": columns | example})
        assert spec.source.model_dump(exclude_unset=True, mode="json").items() >= example.items()


def test_every_setting_of_a_query_and_of_addresses_is_in_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for section in ("sql", "http"):
        annotation: Any = SourceSpec.model_fields[section].annotation
        fields = annotation.__args__[0].model_fields
        assert [name for name in fields if name not in text] == []
