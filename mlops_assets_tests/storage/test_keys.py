from __future__ import annotations

import os.path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlops_assets.errors import StorageError
from mlops_assets.storage import decode_key, encode_key

SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%")
ODD = ["..", ".", "~", "/", "a/b", "../../etc/passwd", "Côte d'Ivoire", "%2F", 'q"', "a=b", "\0"]

keys = st.text(min_size=1, max_size=20)


@given(keys)
@example("..")
@example("%2E")
@example("\x00")
def test_every_key_comes_back_from_its_file_name(key: str) -> None:
    assert decode_key(encode_key(key)) == key


@given(keys)
@example("../x")
@example("~root")
def test_no_file_name_can_leave_its_folder_or_be_hidden(key: str) -> None:
    encoded = encode_key(key)
    assert set(encoded) <= SAFE
    assert os.path.dirname(os.path.normpath(f"/root/{encoded}")) == "/root"


@given(keys, keys)
def test_different_keys_have_different_file_names(one: str, other: str) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_plain_country_codes_stay_readable() -> None:
    assert encode_key("DEU") == "DEU"
    assert encode_key("power_price") == "power_price"
    assert encode_key("a/b.c") == "a%2Fb%2Ec"


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(StorageError, match="empty"):
        encode_key("")


def test_a_key_too_long_for_a_file_name_is_refused() -> None:
    encode_key("a" * 247)
    for key in ("a" * 248, "é" * 42):
        with pytest.raises(StorageError, match="the most is 247"):
            encode_key(key)


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(StorageError, match="Unicode"):
        encode_key("\ud800")


@pytest.mark.parametrize("text", ["", "a.b", "%2f", "%41", "%", "%2", "%FF", "a b", "ñ", ".."])
def test_a_name_that_encoding_never_makes_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match="not an encoded"):
        decode_key(text)
