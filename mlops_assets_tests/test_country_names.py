"""One place resolves a published country, whatever way it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso3166 import countries

from mlops_assets.spec import CountryNames

STANDARD = CountryNames(tuple(each.alpha3 for each in countries))
EPIDEMIC = """Afghanistan|Albania|Algeria|Andorra|Angola|Antarctica|Antigua and Barbuda|Argentina|
Armenia|Australia|Austria|Azerbaijan|Bahamas|Bahrain|Bangladesh|Barbados|Belarus|Belgium|Belize|
Benin|Bhutan|Bolivia|Bosnia and Herzegovina|Botswana|Brazil|Brunei|Bulgaria|Burkina Faso|Burma|
Burundi|Cabo Verde|Cambodia|Cameroon|Canada|Central African Republic|Chad|Chile|China|Colombia|
Comoros|Congo (Brazzaville)|Congo (Kinshasa)|Costa Rica|Cote d'Ivoire|Croatia|Cuba|Cyprus|Czechia|
Denmark|Diamond Princess|Djibouti|Dominica|Dominican Republic|Ecuador|Egypt|El Salvador|
Equatorial Guinea|Eritrea|Estonia|Eswatini|Ethiopia|Fiji|Finland|France|Gabon|Gambia|Georgia|
Germany|Ghana|Greece|Grenada|Guatemala|Guinea|Guinea-Bissau|Guyana|Haiti|Holy See|Honduras|Hungary|
Iceland|India|Indonesia|Iran|Iraq|Ireland|Israel|Italy|Jamaica|Japan|Jordan|Kazakhstan|Kenya|
Kiribati|Korea, North|Korea, South|Kosovo|Kuwait|Kyrgyzstan|Laos|Latvia|Lebanon|Lesotho|Liberia|
Libya|Liechtenstein|Lithuania|Luxembourg|MS Zaandam|Madagascar|Malawi|Malaysia|Maldives|Mali|Malta|
Marshall Islands|Mauritania|Mauritius|Mexico|Micronesia|Moldova|Monaco|Mongolia|Montenegro|Morocco|
Mozambique|Namibia|Nauru|Nepal|Netherlands|New Zealand|Nicaragua|Niger|Nigeria|North Macedonia|
Norway|Oman|Pakistan|Palau|Panama|Papua New Guinea|Paraguay|Peru|Philippines|Poland|Portugal|Qatar|
Romania|Russia|Rwanda|Saint Kitts and Nevis|Saint Lucia|Saint Vincent and the Grenadines|Samoa|
San Marino|Sao Tome and Principe|Saudi Arabia|Senegal|Serbia|Seychelles|Sierra Leone|Singapore|
Slovakia|Slovenia|Solomon Islands|Somalia|South Africa|South Sudan|Spain|Sri Lanka|Sudan|
Summer Olympics 2020|Suriname|Sweden|Switzerland|Syria|Taiwan*|Tajikistan|Tanzania|Thailand|
Timor-Leste|Togo|Tonga|Trinidad and Tobago|Tunisia|Turkey|Tuvalu|US|Uganda|Ukraine|
United Arab Emirates|United Kingdom|Uruguay|Uzbekistan|Vanuatu|Venezuela|Vietnam|
West Bank and Gaza|Winter Olympics 2022|Yemen|Zambia|Zimbabwe""".replace("\n", "").split("|")
RETAIL = """United Kingdom|France|USA|Belgium|Australia|EIRE|Germany|Portugal|Japan|Denmark|Nigeria|
Netherlands|Poland|Spain|Channel Islands|Italy|Cyprus|Greece|Norway|Austria|Sweden|
United Arab Emirates|Finland|Switzerland|Unspecified|Malta|Bahrain|RSA|Bermuda|Hong Kong|Singapore|
Thailand|Israel|Lithuania|West Indies|Lebanon|Korea|Brazil|Canada|Iceland|Saudi Arabia|
Czech Republic|European Community""".replace("\n", "").split("|")


def test_the_names_of_an_epidemic_and_of_a_shop_resolve_without_a_line_of_ones_own() -> None:
    assert (len(EPIDEMIC), len(RETAIL)) == (201, 43)
    assert {name for name in EPIDEMIC if STANDARD.resolve(name) is None} == {
        "Diamond Princess", "MS Zaandam", "Summer Olympics 2020", "Winter Olympics 2022",
    }  # fmt: skip
    assert {name for name in RETAIL if STANDARD.resolve(name) is None} == {
        "Channel Islands", "European Community", "Korea", "Unspecified", "West Indies",
    }  # fmt: skip
    found = [code for name in EPIDEMIC if (code := STANDARD.resolve(name))]
    assert len(set(found)) == len(found) == 197, "no two of them are one country"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Korea, South", "KOR"), ("Korea, North", "PRK"), ("Burma", "MMR"), ("Taiwan*", "TWN"),
        ("West Bank and Gaza", "PSE"), ("Cote d'Ivoire", "CIV"), ("Côte d\u2019Ivoire", "CIV"),
        ("US", "USA"), ("Congo (Kinshasa)", "COD"), ("Congo (Brazzaville)", "COG"),
        ("EIRE", "IRL"), ("RSA", "ZAF"), ("Kosovo", "XKX"), ("St. Lucia", "LCA"), ("uk", "GBR"),
        ("Trinidad & Tobago", "TTO"), ("Gambia, The", "GMB"), ("Nauru", "NRU"),
    ],
)  # fmt: skip
def test_a_name_in_wide_use_is_the_country_it_means(name: str, code: str) -> None:
    assert STANDARD.resolve(name) == code


@given(
    st.sampled_from([each.alpha3 for each in countries]),
    st.sampled_from(["alpha2", "alpha3", "name"]),
    st.sampled_from([str.upper, str.lower, str.title, str]),
    st.text(" \t\u00a0", max_size=3),
)
def test_however_a_country_is_spelled_the_listed_key_is_found(
    code: str, written: str, change: type[str], blanks: str
) -> None:
    country = countries.get(code)
    names = CountryNames((country.alpha2, "own"))
    value = f"{blanks}{change(getattr(country, written))}{blanks}"
    found = names.explain(value)
    assert found.country == country.alpha2 or "may be" in found.reason


@pytest.mark.parametrize("name", ["Congo", "Korea", "Virgin Islands", "Saint Martin"])
def test_a_name_of_several_countries_leads_to_none_and_says_which_they_are(name: str) -> None:
    found = STANDARD.explain(name)
    assert found.country is None
    assert "it may be " in found.reason
    assert "`aliases`" in found.reason
    own = CountryNames(STANDARD.countries, {name: "COD"})
    assert own.resolve(name) == own.resolve(f" {name.upper()} ") == "COD"


def test_codes_of_ones_own_stand_beside_the_standard_and_come_first() -> None:
    names = CountryNames(("DE_LU", "NO1", "IT"), {"RSA": "NO1", "276": "IT"})
    assert names.resolve("de_lu ") == "DE_LU"
    assert names.resolve("RSA") == "NO1", "what the YAML says is not what the standard says"
    assert names.resolve(276.0) == "IT"
    assert names.resolve("Italy") == "IT"
    assert names.resolve("Norway") is None
    assert names.explain("Norway").reason == "it is Norway (NOR), which is not listed"
    assert "(near: Norway, NOR)" in names.explain("Norwy").reason


def test_values_that_nobody_asks_about_cost_no_search_for_a_near_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []
    monkeypatch.setattr(
        "difflib.get_close_matches", lambda word, *_: searched.append(word) or ["norway"]
    )
    names = CountryNames(("DEU",))
    assert [names.resolve(f"station {n}") for n in range(100)] == [None] * 100
    assert searched == []
    assert "(near: Norway, NOR)" in names.explain("Station 7").reason
    assert searched == ["station 7"]


def test_two_spellings_that_were_listed_apart_stay_apart_and_a_third_is_not_guessed() -> None:
    names = CountryNames(("north", "North"))
    assert [names.resolve("north"), names.resolve("North")] == ["north", "North"]
    assert names.resolve("NORTH") is None
    assert "it may be north or North" in names.explain("NORTH").reason


def test_without_the_standard_only_listed_names_and_aliases_count() -> None:
    names = CountryNames(("DEU",), {"Germany": "DEU"}, standard=False)
    assert names.resolve("germany ") == "DEU"
    assert names.resolve("DE") is None
    assert "it is not listed" in names.explain("DE").reason


@pytest.mark.parametrize("value", [None, float("nan"), "", "  ", b""])
def test_no_country_is_none(value: object) -> None:
    assert STANDARD.resolve(value) is None
