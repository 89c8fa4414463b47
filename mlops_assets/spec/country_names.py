"""The one place where a published country becomes a listed one.

Reading, counting, the contract and every report ask here, so that a value is the same country for
all of them. First come the countries and aliases of the YAML as they stand, then their spelling
(blanks, case, accents and punctuation do not count), then the names and codes of ISO 3166.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal

Found = Literal["listed", "alias", "spelling", "standard", ""]

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "ARE": ("UAE",),
    "BOL": ("Bolivia",),
    "BRN": ("Brunei",),
    "CAF": ("CAR",),
    "CIV": ("Ivory Coast",),
    "COD": ("Congo (Kinshasa)", "Congo-Kinshasa", "DR Congo", "DRC", "Zaire"),
    "COG": ("Congo (Brazzaville)", "Congo-Brazzaville", "Republic of Congo", "Congo, Rep."),
    "CPV": ("Cape Verde", "Cape Verde Islands"),
    "CZE": ("Czech Republic",),
    "DEU": ("Federal Republic of Germany",),
    "EGY": ("Egypt, Arab Rep.", "Arab Republic of Egypt"),
    "FLK": ("Falkland Islands", "Falklands"),
    "FSM": ("Micronesia",),
    "GBR": ("UK", "Great Britain", "Britain", "United Kingdom"),
    "GMB": ("Gambia, The",),
    "GRC": ("EL", "Hellas", "Hellenic Republic"),
    "HKG": ("Hong Kong SAR", "Hong Kong SAR, China", "Hong Kong S.A.R."),
    "IRL": ("Eire", "Republic of Ireland"),
    "IRN": ("Iran",),
    "KGZ": ("Kyrgyz Republic",),
    "KNA": ("St. Kitts and Nevis",),
    "KOR": ("Korea, South", "South Korea", "Korea, Rep.", "Republic of Korea"),
    "LAO": ("Laos", "Lao PDR"),
    "LBY": ("Libyan Arab Jamahiriya",),
    "MAC": ("Macau", "Macao SAR", "Macao SAR, China"),
    "MAF": ("Saint Martin",),
    "MDA": ("Moldova",),
    "MKD": ("Macedonia", "FYROM", "Republic of North Macedonia"),
    "MMR": ("Burma",),
    "NLD": ("Holland", "Netherlands"),
    "NRU": ("Nauru",),
    "PRK": ("Korea, North", "North Korea", "Korea, Dem. People's Rep.", "DPRK"),
    "PSE": ("Palestine", "West Bank and Gaza", "Palestinian Territories", "Occupied Palestinian "
            "Territory"),
    "RUS": ("Russia",),
    "SVK": ("Slovak Republic",),
    "SWZ": ("Swaziland",),
    "SXM": ("Saint Martin",),
    "SYR": ("Syria",),
    "TLS": ("East Timor",),
    "TUR": ("Turkey", "Turkiye"),
    "TWN": ("Taiwan", "Chinese Taipei"),
    "TZA": ("Tanzania",),
    "USA": ("US", "U.S.", "U.S.A.", "United States", "United States of America"),
    "VAT": ("Vatican", "Vatican City", "Holy See"),
    "VEN": ("Venezuela", "Venezuela, RB"),
    "VNM": ("Vietnam",),
    "XKX": ("Kosovo", "Republic of Kosovo"),
    "YEM": ("Yemen, Rep.",),
    "ZAF": ("RSA",),
}  # fmt: skip
"""ISO 3166 alpha-3: names in wide use that the standard does not have.

A name of several countries stands with each of them, and then leads to none.
"""

_SAME_WORD = {"&": "and", "st": "saint", "ste": "sainte", "rep": "republic", "dem": "democratic"}
_SILENT = frozenset({"the", "of"})
_CLOSE = 0.8
_NOT_LISTED = "it is not listed; list it, or say under `aliases` which country it is"


@dataclass(frozen=True)
class Resolution:
    """What a published country value stands for.

    Attributes:
        country: the listed country; None when it stands for none, or for several.
        found: by what; "" when it was not.
        reason: why it stands for no listed country, with the way out; "" when it does.
    """

    country: str | None
    found: Found = ""
    reason: str = ""


@dataclass(frozen=True)
class CountryNames:
    """Which listed country a published value stands for.

    Attributes:
        countries: as the YAML lists them.
        aliases: published value: country it stands for.
        standard: whether names and codes of ISO 3166 lead to the listed country they mean.
    """

    countries: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    standard: bool = True

    @cached_property
    def _exact(self) -> Mapping[str, str]:
        return {**{each: each for each in self.countries}, **self.aliases}

    @cached_property
    def _spelled(self) -> Mapping[str, list[str]]:
        return _grouped((folded(name), country) for name, country in self._exact.items())

    @cached_property
    def _meant(self) -> Mapping[str, list[str]]:
        """Listed countries by the one of ISO 3166 that they are."""
        return _grouped((_only_code(each), each) for each in self.countries)

    @cached_property
    def _known(self) -> dict[str, Resolution]:
        return {}

    def resolve(self, value: object) -> str | None:
        """The listed country a published value stands for, whatever its type; None for none."""
        return self._resolution(value).country

    def explain(self, value: object) -> Resolution:
        """The same with how it was found, or why it was not; that takes a search of all names."""
        found = self._resolution(value)
        unknown = found.country is None and not found.reason
        return replace(found, reason=_unknown(country_text(value))) if unknown else found

    def _resolution(self, value: object) -> Resolution:
        """Without the reason where no country is named so: there may be many such values."""
        text = country_text(value)
        if text not in self._known:
            self._known[text] = self._found(text)
        return self._known[text]

    def _found(self, text: str) -> Resolution:
        if not text:
            return Resolution(None, reason="no country is given")
        if country := self._exact.get(text):
            return Resolution(country, "listed" if country == text else "alias")
        if alike := self._spelled.get(folded(text)):
            return _one_of(alike, "spelling")
        return self._by_standard(text) if self.standard else Resolution(None, reason=_NOT_LISTED)

    def _by_standard(self, text: str) -> Resolution:
        codes = standard_codes(text)
        if not codes:
            return Resolution(None)
        if len(codes) > 1:
            return _one_of([f"{code} ({standard_name(code)})" for code in codes], "standard")
        (code,) = codes
        if code in self._meant:
            return _one_of(self._meant[code], "standard")
        return Resolution(None, reason=f"it is {standard_name(code)} ({code}), which is not listed")


def _one_of(countries: list[str], found: Found) -> Resolution:
    if len(countries) == 1:
        return Resolution(countries[0], found)
    named = " or ".join(countries)
    return Resolution(None, reason=f"it may be {named}; say which under `aliases`")


def _only_code(country: str) -> str:
    """The code of a name that means one country of ISO 3166, else ""."""
    codes = standard_codes(country)
    return codes[0] if len(codes) == 1 else ""


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        if key and value not in found[key]:
            found[key].append(value)
    return dict(found)


def _unknown(text: str) -> str:
    close = difflib.get_close_matches(folded(text), _names(), 1, _CLOSE)
    hint = ""
    if close and len(_names()[close[0]]) == 1:
        (code,) = _names()[close[0]]
        hint = f" (near: {standard_name(code)}, {code})"
    return (
        f"no country of ISO 3166 is named so{hint}; list it under `countries`, or say under "
        "`aliases` which one it is"
    )


def country_text(value: object) -> str:
    """A published country value as text, blanks stripped; "" when there is none."""
    if isinstance(value, float):
        # A numeric code in a column with nulls is often stored as 276.0.
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return "" if value is None else str(value).strip()


def folded(name: str) -> str:
    """A name without what publishers write in different ways.

    Case, accents, punctuation, blanks, `the` and `of` do not count; `&` is *and*, `St.` is *Saint*.
    """
    plain = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(sign for sign in plain if not unicodedata.combining(sign))
    words: list[str] = re.findall(r"&|[^\W_]+(?:_[^\W_]+)*", letters.replace(".", ""))
    kept = [str(_SAME_WORD.get(word, word)) for word in words if word not in _SILENT]
    return " ".join(kept) or letters.strip()


def standard_codes(name: str) -> list[str]:
    """ISO 3166 alpha-3 of the countries that a name or code may mean; none, one or several."""
    return sorted(_names().get(folded(name), ()))


def standard_name(code: str) -> str:
    """The short name of an alpha-3 code."""
    return _list()[code][1]


def same_country(countries: Iterable[str]) -> list[tuple[str, ...]]:
    """Listed keys that are one country of ISO 3166, such as DE and DEU."""
    meant = _grouped((_only_code(each), each) for each in countries)
    return [tuple(keys) for keys in meant.values() if len(keys) > 1]


@lru_cache(maxsize=1)
def _list() -> dict[str, tuple[str, str]]:
    """Alpha-3: alpha-2 and short name."""
    from iso3166 import countries

    return {each.alpha3: (each.alpha2, each.name) for each in countries}


@lru_cache(maxsize=1)
def _names() -> dict[str, frozenset[str]]:
    """Folded name or code: the countries it may mean."""
    from iso3166 import countries

    meant: dict[str, set[str]] = defaultdict(set)
    for each in countries:
        written = {each.alpha2, each.alpha3, *OTHER_NAMES.get(each.alpha3, ())}
        for name in (each.name, each.apolitical_name):
            written |= _ways_to_write(name)
        for name in written:
            meant[folded(name)].add(each.alpha3)
    return {name: frozenset(codes) for name, codes in meant.items()}


def _ways_to_write(name: str) -> set[str]:
    """`Bolivia, Plurinational State of` also as both parts in order, and as the first one alone."""
    head, comma, tail = name.partition(",")
    plain = re.sub(r"\s*\([^)]*\)", "", name)
    return {name, plain, f"{tail} {head}", head} if comma else {name, plain}
