"""Loading a product's folder: what is accepted, what is refused, what it costs."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlops_assets
from mlops_assets.components.loading import load_product
from mlops_assets.errors import ConfigurationError
from mlops_assets_tests.components.folders import YAML, spoiled, write
from mlops_assets_tests.effort import examples

DEFS = Path(mlops_assets.__file__).parent / "defs"


def refusal(folder: Path) -> str:
    """Message of the error that loading the folder raises."""
    with pytest.raises(ConfigurationError) as caught:
        load_product(folder)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "power_price")


def test_a_right_folder_becomes_a_product_of_its_name(folder: Path) -> None:
    product = load_product(folder)
    assert product.name == "power_price"
    assert product.folder == folder.resolve()
    assert product.spec.countries == ["DEU", "FRA", "CHN", "NO"]
    assert product.spec.split.train_from == dt.date(2019, 1, 1)
    assert product.spec.split.holdout_from == dt.date(2025, 1, 1)
    assert product.spec.candidates[0].params == {
        "max_iter": 200,
        "learning_rate": 0.1,
        "early_stopping": False,
        "random_state": None,
    }


def test_a_relative_folder_is_the_same_product(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert load_product(Path()) == load_product(folder)


@pytest.mark.parametrize("name", ["power_price", "booking_cancellation", "customer_repurchase"])
def test_the_products_of_the_project_load(name: str) -> None:
    product = load_product(DEFS / name)
    assert product.contract().to_schema().columns
    assert callable(product.feature_function())
    for country in product.spec.countries:
        assert product.resolved(country)


def test_loading_imports_no_heavy_library_and_nothing_of_the_product(folder: Path) -> None:
    (folder / "features.py").write_text("raise RuntimeError\ndef build(frame): ...\n")
    heavy = ("sklearn", "mlflow", "pandera", "scipy", "duckdb", "pyarrow")
    code = (
        "import sys; from pathlib import Path\n"
        "from mlops_assets.components.loading import load_product\n"
        f"load_product(Path({str(folder)!r}))\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_their_lines(
    folder: Path,
) -> None:
    content = spoiled("metric: mae", "metric: auc")
    content = content.replace("- team:energy", "- energy").replace('"NO"', "NO")
    content = content.replace("seed: 7", "sed: 7").replace("CN: CHN", "CN: CHINA")
    content = content.replace("rows: 200", "rows: many").replace("features.build", "features.make")
    message = refusal(write(folder, content))
    keys = [line.split(": ")[1] for line in message.splitlines()[1:-1]]
    assert message.splitlines()[0].endswith("has 8 problems:")
    assert keys == [
        "attributes.owners[0]",
        "attributes.countries[3]",
        "attributes.aliases.CN",
        "attributes.features",
        "attributes.metric",
        "attributes.gates.floor",
        "attributes.sed",
        "attributes.overrides.FRA.split.min_train_rows",
    ]


def test_the_problems_are_data_too(folder: Path) -> None:
    write(folder, spoiled("seed: 7", "seed: x"))
    with pytest.raises(ConfigurationError) as caught:
        load_product(folder)
    (problem,) = caught.value.culprits["problems"]
    assert problem["key"] == "attributes.seed"
    assert problem["line"] == YAML[: YAML.index("seed: 7")].count("\n") + 1
    assert problem["example"] == "seed: 0"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("", "1: found an empty file", id="empty"),
        pytest.param("# nothing\n", "1: found an empty file", id="comments_only"),
        pytest.param("just text\n", "1: found a single value", id="text"),
        pytest.param("- a\n- b\n", "1: found a list", id="list"),
        pytest.param("{}\n", "1: type: found nothing", id="no_keys"),
        pytest.param(YAML + "---\n" + YAML, ":70: found several documents", id="documents"),
        pytest.param(spoiled("  seed: 7", "\tseed: 7"), "found a tab", id="tab"),
        pytest.param("type: x\nattributes:\n  a: [1\n", "4: found something that", id="bracket"),
        pytest.param("type: x\nattributes: a: b\n", "2: found something that", id="two_colons"),
        pytest.param(b"type: \xff\n", "1: found bytes that are not UTF-8", id="not_utf8"),
        pytest.param("type: x\na: \x07\n", "2: found the unprintable", id="unprintable"),
        pytest.param(spoiled("key: [country", "key: &k [country"), "anchor", id="anchor"),
        pytest.param(spoiled("seed: 7", "seed: *k"), "found an anchor or alias", id="alias"),
        pytest.param(spoiled("seed: 7", "<<: {seed: 7}"), "the unquoted key <<", id="merge"),
        pytest.param(spoiled("seed: 7", "seed: !!str 7"), "found the tag", id="tag"),
        pytest.param(spoiled("seed: 7", "seed: {{ seed }}"), "a template {{", id="template"),
        pytest.param(spoiled("seed: 7", "[a]: 7"), "found a list as a key", id="list_key"),
        pytest.param("[" * 5000, "very deep nesting", id="deep"),
        pytest.param('a: "\\UFFFFFFFF"\n', "found something that is not YAML", id="escape"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_line(
    folder: Path, content: str | bytes, says: str
) -> None:
    message = refusal(write(folder, content))
    assert f"{folder.resolve() / 'defs.yaml'}:" in message
    assert says in message
    assert "; expected " in message


def test_a_quoted_norway_is_a_country_and_a_quoted_number_a_text(folder: Path) -> None:
    write(folder, spoiled("unit: EUR/MWh", 'unit: "010"'))
    product = load_product(folder)
    assert "NO" in product.spec.countries
    assert product.spec.target.unit == "010"


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(folder: Path) -> None:
    right = load_product(folder)
    write(folder, b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode())
    assert load_product(folder).spec == right.spec


def test_whole_numbers_are_fine_where_a_number_is_expected(folder: Path) -> None:
    assert load_product(folder).spec.gates.floor == 30.0


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no defs.yaml" in refusal(tmp_path / "empty")
    assert "has no defs.yaml" in refusal(tmp_path / "missing")


@pytest.mark.parametrize("name", ["Power", "power-price", "1st", "_p", "class", "a b", "ä", "p.q"])
def test_a_folder_whose_name_is_no_product_name_is_refused(name: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / name))
    assert f"{name!r} cannot be the name of a product" in message


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("features.py", "def build(:\n", "features.py:1 is not Python"),
        ("features.py", "x = 1\x00\n", "is not Python"),
        ("features.py", "class build: ...\n", "features.py:1 is no function"),
        ("features.py", "def other(): ...\n", "has no function build; it has other"),
        ("contract.py", "", "has no class Price; it has nothing"),
        ("sample.py", "def generated(): ...\n", "did you mean sample.generated?"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(
    folder: Path, file: str, content: str, says: str
) -> None:
    (folder / file).write_text(content)
    assert says in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        "from elsewhere import build\n",
        "from elsewhere import make as build\n",
        "from elsewhere import *\n",
        "build = lambda frame: frame\n",
        "if True:\n    def build(frame): ...\n",
        "try:\n    from fast import build\nexcept ImportError:\n    def build(frame): ...\n",
    ],
)
def test_a_function_may_be_imported_assigned_or_conditional(folder: Path, content: str) -> None:
    (folder / "features.py").write_text(content)
    assert load_product(folder).spec.features == "features.build"


def test_a_reference_may_lead_into_a_package_of_the_folder(folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "daily.py").write_text("def build(frame): return 1\n")
    write(folder, spoiled("features: features.build", "features: parts.daily.build"))
    assert load_product(folder).feature_function()(None) == 1


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | bytes], None]:
    folder = write(tmp_path_factory.mktemp("fuzz") / "product")

    def load(content: str | bytes) -> None:
        (folder / "defs.yaml").write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        )
        try:
            load_product(folder)
        except ConfigurationError as error:
            assert str(folder) in str(error)  # noqa: PT017 - both outcomes are right

    return load


SNIPPETS = st.sampled_from(
    ["\n", "  ", "- ", ": ", "NO", "{", "}", "[", "]", "{{", "'", '"', "\\", "&a", "*a", "!!", "|",
     ">", "#", "---", "...", "%", "@", "\t", "? ", "0o7", "1e9", ".nan", "~", "\x00", "\u2028",
     "\ufeff", "\ud800", "<<", "=", "2025-01-01", "null", "\\uD800", "\\x", "attributes:"]
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(st.text() | st.lists(SNIPPETS | st.text(max_size=3)).map("".join))
def test_any_text_loads_or_is_refused(scratch: Callable[[str], None], content: str) -> None:
    scratch(content)


@settings(max_examples=examples(50), deadline=None)
@given(st.binary())
def test_any_bytes_load_or_are_refused(scratch: Callable[[bytes], None], content: bytes) -> None:
    scratch(content)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(YAML)), st.integers(0, 30), SNIPPETS | st.text(max_size=5)),
        min_size=1,
        max_size=3,
    )
)
def test_a_right_file_with_random_edits_loads_or_is_refused(
    scratch: Callable[[str], None], edits: list[tuple[int, int, str]]
) -> None:
    content = YAML
    for start, length, text in edits:
        content = content[:start] + text + content[start + length :]
    scratch(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_any_value_at_any_key_loads_or_is_refused(
    scratch: Callable[[str], None], data: st.DataObject
) -> None:
    import yaml

    content = yaml.safe_load(YAML.replace("2019-01-01", '"2019-01-01"'))
    table = content["attributes"]
    while True:
        key = data.draw(st.sampled_from(sorted(table, key=str)))
        if not isinstance(table[key], dict) or data.draw(st.booleans()):
            break
        if not table[key]:
            break
        table = table[key]
    table[key] = data.draw(VALUES)
    scratch(yaml.safe_dump(content, allow_unicode=True))
