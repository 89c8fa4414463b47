"""What the strict reader accepts means the same to Dagster's reader; positions are right."""

from __future__ import annotations

import pytest
from dagster_shared.yaml_utils import safe_load_yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_assets.components.strict_yaml import read
from mlops_assets_tests.effort import examples

SCALARS = st.text(alphabet="0123456789.:_-+eExobNOnyestruFAl~=< ", max_size=8)


@settings(max_examples=examples(1000), deadline=None)
@given(SCALARS)
def test_an_accepted_value_reads_the_same_in_dagster(scalar: str) -> None:
    content = f"key: {scalar}\n"
    document = read(content.encode())
    assume(not document.problems)
    expected = safe_load_yaml(content)
    assert document.value == expected
    assert type(document.value["key"]) is type(expected["key"])


@settings(max_examples=examples(300), deadline=None)
@given(SCALARS)
def test_an_accepted_key_reads_the_same_in_dagster(scalar: str) -> None:
    content = f"{scalar or 'x'}: 1\n"
    document = read(content.encode())
    assume(not document.problems)
    assert document.value == safe_load_yaml(content)


@pytest.mark.parametrize(
    "scalar",
    ["NO", "no", "Yes", "on", "OFF", "010", "0x1F", "0b11", "0o17", "1:30", "1:30.5", "1_000",
     "1_0.5", ".inf", "-.INF", ".nan", "1e3", "1.5e3", "1e-3", "=", "<<", "9" * 30],
)  # fmt: skip
def test_a_value_that_may_surprise_is_refused_and_accepted_in_quotes(scalar: str) -> None:
    (problem,) = read(f"key: {scalar}\n".encode()).problems
    assert problem.loc == ("key",)
    assert f'write "{scalar}"' in problem.expected
    assert read(f'key: "{scalar}"\n'.encode()).value == {"key": scalar}


@pytest.mark.parametrize(
    ("scalar", "value"),
    [("true", True), ("False", False), ("12", 12), ("-3", -3), ("0.5", 0.5), ("1.0e-3", 0.001),
     (".5", 0.5), ("~", None), ("null", None), ("", None), ("1d", "1d"), ("text", "text"),
     ("2025-01-01", "2025-01-01"), ("0 4 * * 1", "0 4 * * 1"), ("team:x", "team:x")],
)  # fmt: skip
def test_a_plain_value_is_what_it_looks_like(scalar: str, value: object) -> None:
    document = read(f"key: {scalar}\n".encode())
    assert document.problems == []
    assert document.value == {"key": value}


def test_every_key_and_item_has_its_line() -> None:
    document = read(b"a:\n  - x\n  - b: 1\n    c: [1,\n      2]\nd: |\n  long\n  text\n")
    assert document.lines == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "b"): 3,
        ("a", 1, "c"): 4,
        ("a", 1, "c", 0): 4,
        ("a", 1, "c", 1): 5,
        ("d",): 6,
    }
    assert document.line(("a", 1, "missing")) == 3
    assert document.line(("missing",)) == 1


def test_every_surprise_of_a_file_is_told() -> None:
    document = read(b"a: NO\nb: [on, 010]\nNO: 1\na: 2\n")
    assert [problem.loc for problem in document.problems] == [
        ("a",),
        ("b", 0),
        ("b", 1),
        ("NO",),
        ("a",),
    ]
    assert document.value == {"a": "NO", "b": ["on", "010"], "NO": 1}
