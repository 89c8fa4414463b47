"""A loaded product imports its parts when asked, and knows when its code changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlops_assets.components.loading import load_product
from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Part, Product
from mlops_assets_tests.components.folders import CONTRACT, FEATURES, YAML, spoiled, write


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return load_product(write(tmp_path / "power_price"))


def change(product: Product, file: str, content: str) -> Product:
    """The product with one file changed, loaded again."""
    (product.folder / file).write_text(content)
    return load_product(product.folder)


def test_a_country_is_resolved_with_its_overrides(product: Product) -> None:
    assert product.resolved("FRA").split.min_train_rows == 200
    assert product.resolved("FRA").metric == "rmse"
    assert product.resolved("DEU").split.min_train_rows == 500


def test_a_country_that_is_not_listed_is_refused(product: Product) -> None:
    with pytest.raises(ConfigurationError, match="does not list the country 'MNE'"):
        product.resolved("MNE")


def test_contract_and_functions_come_from_the_folder(product: Product) -> None:
    assert list(product.contract().to_schema().columns) == ["country", "date", "price"]
    assert product.feature_function()("frame") == "frame"
    sample = product.sample_function()
    assert sample is not None
    assert sample(seed=0, countries=[]).empty
    assert product.contract() is product.contract()


def test_a_product_without_sample_has_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "power_price", YAML.replace("  sample: sample.generate\n", ""))
    assert load_product(folder).sample_function() is None


def test_two_products_of_one_name_do_not_share_modules(tmp_path: Path) -> None:
    one = load_product(write(tmp_path / "one" / "power_price"))
    other = load_product(write(tmp_path / "other" / "power_price"))
    changed = change(other, "features.py", "def build(validated): return 'other'\n")
    assert one.feature_function()("frame") == "frame"
    assert changed.feature_function()("frame") == "other"


def test_a_product_of_the_project_is_imported_under_its_package_name() -> None:
    import mlops_assets

    folder = Path(mlops_assets.__file__).parent / "defs" / "power_price"
    function = load_product(folder).feature_function()
    assert function.__module__ == "mlops_assets.defs.power_price.features"


def test_modules_of_a_folder_may_import_each_other(product: Product) -> None:
    (product.folder / "days.py").write_text("def week(): return 7\n")
    content = "from .days import week\nfrom . import days\ndef build(validated): return week()\n"
    assert change(product, "features.py", content).feature_function()(None) == 7


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nothing_of_this_name\nclass Price: ...\n", "ModuleNotFoundError"),
        ("class Price: ...\n", "is not a pandera DataFrameModel"),
        (CONTRACT + "    volume: float\n", "has columns volume, which neither source.columns"),
        (CONTRACT.replace("    price: float\n", ""), "has no columns price, which `source`"),
    ],
)
def test_a_contract_that_cannot_be_used_is_refused(
    product: Product, content: str, says: str
) -> None:
    changed = change(product, "contract.py", content)
    with pytest.raises(ConfigurationError) as caught:
        changed.contract()
    assert says in str(caught.value)
    assert str(product.folder / "contract.py") in str(caught.value)


def test_a_contract_may_have_optional_and_derived_columns(tmp_path: Path) -> None:
    yaml = spoiled("known_later: []", "derived: [week]")
    product = load_product(write(tmp_path / "power_price", yaml))
    columns = "    week: int\n    volume: 'pa.typing.Series[float] | None'\n"
    changed = change(product, "contract.py", CONTRACT.replace("    price", columns + "    price"))
    assert "week" in changed.contract().to_schema().columns


def test_a_function_that_fails_to_import_is_refused_with_its_cause(product: Product) -> None:
    changed = change(product, "features.py", "1 / 0\ndef build(validated): ...\n")
    with pytest.raises(ConfigurationError, match="ZeroDivisionError") as caught:
        changed.feature_function()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_name_that_is_no_function_is_refused(product: Product) -> None:
    with pytest.raises(ConfigurationError, match="is not a function"):
        change(product, "features.py", "build = 5\n").feature_function()


SHARING = YAML.replace(
    "  features: features.build\n",
    "  features: features.build\n  shared_features: everywhere.shared\n",
)


def sharing(tmp_path: Path, features: str) -> Product:
    """A product with shared features, and another feature function."""
    folder = write(tmp_path / "power_price")
    (folder / "everywhere.py").write_text("def shared(validated): return sorted(validated)\n")
    (folder / "features.py").write_text(features)
    (folder / "defs.yaml").write_text(SHARING)
    return load_product(folder)


def test_with_shared_features_the_feature_function_takes_them_second(tmp_path: Path) -> None:
    product = sharing(tmp_path, "def build(validated, shared): return [validated, shared]\n")
    shared = product.shared_function()
    assert shared is not None
    made = shared({"NOR": "frame", "DEU": "frame"})
    assert product.feature_function()("frame", made) == ["frame", ["DEU", "NOR"]]


def test_a_product_without_shared_features_has_no_such_function(product: Product) -> None:
    assert product.shared_function() is None


@pytest.mark.parametrize("features", ["def build(validated): ...\n", "def build(): ...\n"])
def test_a_feature_function_that_does_not_take_shared_features_is_refused(
    tmp_path: Path, features: str
) -> None:
    product = sharing(tmp_path, features)
    with pytest.raises(ConfigurationError, match=r"does not take 2 \(validated, shared\)"):
        product.feature_function()


def test_a_feature_function_that_wants_shared_features_nobody_makes_is_refused(
    product: Product,
) -> None:
    changed = change(product, "features.py", "def build(validated, shared): ...\n")
    with pytest.raises(ConfigurationError, match=r"does not take 1 \(validated\)"):
        changed.feature_function()


def test_shared_features_that_are_not_there_are_refused_when_the_product_is_loaded(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "power_price", SHARING)
    with pytest.raises(ConfigurationError, match="shared_features"):
        load_product(folder)


def test_shared_features_have_a_code_version_of_their_own(tmp_path: Path) -> None:
    product = sharing(tmp_path, "def build(validated, shared): return validated\n")
    parts: list[Part] = ["features", "shared_features"]
    before = {part: product.code_version(part) for part in parts}
    changed = change(product, "everywhere.py", "def shared(validated): return list(validated)\n")
    assert changed.code_version("features") == before["features"]
    assert changed.code_version("shared_features") != before["shared_features"]


def test_comments_and_layout_do_not_change_the_code_version(product: Product) -> None:
    before = product.code_version()
    content = "# a comment\n" + FEATURES.replace("return validated", "return (\n    validated)")
    assert change(product, "features.py", content).code_version() == before


def test_a_changed_statement_changes_the_code_version_of_its_part(product: Product) -> None:
    before = {part: product.code_version(part) for part in ("contract", "features", "sample")}
    content = FEATURES.replace("return validated", "return validated.copy()")
    changed = change(product, "features.py", content)
    assert changed.code_version("features") != before["features"]
    assert changed.code_version("contract") == before["contract"]
    assert changed.code_version("sample") == before["sample"]
    assert changed.code_version() != product.code_version("contract")


@pytest.mark.parametrize(
    "statement", ["from .days import week", "from . import days", "from .parts.days import week"]
)
def test_a_changed_helper_changes_the_code_version(product: Product, statement: str) -> None:
    (product.folder / "parts").mkdir()
    helpers = [product.folder / "days.py", product.folder / "parts" / "days.py"]
    for helper in helpers:
        helper.write_text("def week(): return 7\n")
    changed = change(product, "features.py", f"{statement}\n{FEATURES}")
    before = changed.code_version("features")
    for helper in helpers:
        helper.write_text("def week(): return 5\n")
    assert changed.code_version("features") != before


def test_asking_for_the_code_version_imports_nothing(product: Product) -> None:
    (product.folder / "features.py").write_text("raise RuntimeError\n")
    loaded = {name for name in sys.modules if "power_price" in name}
    assert len(product.code_version()) == 12
    assert {name for name in sys.modules if "power_price" in name} == loaded
