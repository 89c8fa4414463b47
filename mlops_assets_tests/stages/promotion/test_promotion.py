"""A person moves champions: rollback, force, approval and undo, of one country and of many."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from mlops_assets.errors import ConfigurationError, RegistryError
from mlops_assets.registry import Aliases
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.promotion.change_sets import ChangeSet, change_sets, open_change_set
from mlops_assets.stages.promotion.decision_replay import replay_decision
from mlops_assets.stages.promotion.plan import (
    ChangePlan,
    MovedCountry,
    Requester,
    apply_plan,
    plan_approval,
    plan_promotion,
    plan_rollback,
    plan_undo,
)
from mlops_assets_tests.forks import forks
from mlops_assets_tests.platform import Platform, checks, failures
from mlops_assets_tests.stages.killed_decisions import Moment, decide_and_die, roll_back_and_die
from mlops_assets_tests.stages.proposals import (
    ASKED,
    COUNTRIES,
    PRODUCT,
    aliases,
    decide,
    in_use,
    propose,
    registered,
    shows,
    write_model,
)

COUNTRY = "FRA"
ASSETS = ("model", "champion", "predictions")


def quietly(moved: MovedCountry) -> None:
    """No Dagster run to tell."""


def done(platform: Platform, plan: ChangePlan) -> ChangeSet:
    return apply_plan(platform.context, plan, ASKED, quietly)


def all_aliases(platform: Platform) -> dict[str, Aliases]:
    return {country: aliases(platform, country) for country in COUNTRIES}


def test_a_rollback_puts_the_version_of_before_into_use_and_is_recorded_as_a_decision(
    two: Platform,
) -> None:
    change_set = done(two, plan_rollback(two.context, [COUNTRY]))
    assert (in_use(two, COUNTRY), shows(two, COUNTRY)) == ("1", "1")
    row = two.decisions(COUNTRY).iloc[-1]
    assert (row["verdict"], row["version"], row["previous"]) == ("rolled_back", "1", "2")
    assert (row["person"], row["change_set"], row["trigger"]) == ("ana", change_set.id, "by hand")
    assert "prices went wrong" in row["reason"]
    for number in ("1", "2"):
        tags = two.registry.version(registered_name(PRODUCT, COUNTRY), number).tags
        assert tags["mlops_assets.verdict"] == "rolled_back"
    assert replay_decision(two.context, row["decision_id"]).same


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_second_rollback_comes_back_to_where_the_first_began(two: Platform) -> None:
    before = aliases(two, COUNTRY)
    for expected in ("1", "2"):
        done(two, plan_rollback(two.context, [COUNTRY]))
        assert in_use(two, COUNTRY) == expected
    assert aliases(two, COUNTRY) == before


def test_after_a_rollback_the_status_is_right_and_only_predictions_are_made_again(
    two: Platform,
) -> None:
    assert two.run(COUNTRY, assets=["predictions"]).success
    assert two.status()[COUNTRY].champion_version == "2"
    done(two, plan_rollback(two.context, [COUNTRY]))
    status = two.status()[COUNTRY]
    assert (status.champion_version, status.state) == ("1", "behind")
    assert status.why == "predictions are of version 2, in use is version 1"
    assert two.first_stale(COUNTRY, ASSETS) == "predictions"
    result = two.run(COUNTRY, assets=["champion", "predictions", "performance", "drift"])
    assert result.success, failures(result)
    assert checks(result)["champion.equals_registry_alias"].passed
    assert (in_use(two, COUNTRY), shows(two, COUNTRY)) == ("1", "1")
    assert set(two.frame("predictions", COUNTRY)["model_version"]) == {"1"}
    status = two.status()[COUNTRY]
    assert (status.champion_version, status.state) == ("1", "ok")
    assert "rolled back by ana" in status.why
    assert two.first_stale(COUNTRY, ASSETS) is None


def test_evidence_does_not_promote_again_what_a_person_rolled_back_from(two: Platform) -> None:
    done(two, plan_rollback(two.context, [COUNTRY]))
    row = two.frame("model", COUNTRY).assign(champion_version="1", train_rows=1)
    write_model(two, COUNTRY, row)
    decide(two, COUNTRY)
    decision = two.decisions(COUNTRY).iloc[-1]
    assert (decision["verdict"], in_use(two, COUNTRY)) == ("kept", "1")
    assert "ana rolled back from version 2" in decision["reason"]
    assert replay_decision(two.context, decision["decision_id"]).same
    done(two, plan_promotion(two.context, [COUNTRY]))
    assert in_use(two, COUNTRY) == "2"


def test_a_forced_promotion_puts_the_newest_candidate_into_use(two: Platform) -> None:
    propose(two, COUNTRY, error=1.0)
    decide(two, COUNTRY)
    kept = two.decisions(COUNTRY).iloc[-1]
    assert kept["verdict"] == "kept"
    done(two, plan_promotion(two.context, [COUNTRY]))
    row = two.decisions(COUNTRY).iloc[-1]
    assert (row["verdict"], row["version"], row["previous"]) == ("forced", "3", "2")
    assert (row["evidence"], row["gates"]) == (kept["evidence"], kept["gates"])
    assert two.first_stale(COUNTRY, ASSETS[:2]) is None
    assert two.run(COUNTRY, job="train", assets=["champion"]).success
    assert in_use(two, COUNTRY) == "3"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_version_is_named_by_its_number(two: Platform) -> None:
    for wanted in ("3", "4"):
        assert registered(two, COUNTRY).version == wanted
    done(two, plan_promotion(two.context, [COUNTRY], "3"))
    done(two, plan_rollback(two.context, [COUNTRY], "1"))
    assert aliases(two, COUNTRY) == Aliases("1", "3", "4")


def test_many_countries_are_one_change_set_that_is_undone_as_a_whole(two: Platform) -> None:
    done(two, plan_promotion(two.context, [COUNTRY], registered(two, COUNTRY).version))
    before = all_aliases(two)
    some = ("DEU", COUNTRY)
    change_set = done(two, plan_rollback(two.context, some, "1"))
    assert {in_use(two, country) for country in some} == {"1"}
    assert {two.decisions(country)["change_set"].iloc[-1] for country in some} == {change_set.id}
    back = done(two, plan_undo(two.context, change_set.id))
    assert all_aliases(two) == before, "`previous` too"
    assert [shows(two, country) for country in some] == ["2", "3"]
    assert done(two, plan_undo(two.context, back.id)).state == "done"
    assert {in_use(two, country) for country in some} == {"1"}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_undoing_the_first_promotion_leaves_the_baseline_in_use(trained: Platform) -> None:
    name = registered_name(PRODUCT, COUNTRY)
    trained.registry.point(name, Aliases())
    change_set = done(trained, plan_promotion(trained.context, [COUNTRY], "1"))
    assert in_use(trained, COUNTRY) == "1"
    done(trained, plan_undo(trained.context, change_set.id))
    assert aliases(trained, COUNTRY) == Aliases("", "", "1")
    assert trained.frame("champion", COUNTRY)["kind"].iloc[0] == "baseline"
    assert trained.status()[COUNTRY].champion_version is None


def test_the_plan_lists_every_country_and_problems_first(two: Platform) -> None:
    two.registry.point(registered_name(PRODUCT, "NOR"), Aliases("1"))
    plan = plan_rollback(two.context, COUNTRIES)
    frame = plan.frame()
    assert frame["country"].tolist() == ["NOR", "DEU", "FRA"]
    assert "name one (--to VERSION)" in frame["note"].iloc[0]
    assert frame["from"].tolist()[1:] == ["version 2", "version 2"]
    assert frame["to"].tolist()[1:] == ["version 1", "version 1"]
    before, logs = all_aliases(two), {c: len(two.decisions(c)) for c in COUNTRIES}
    with pytest.raises(ConfigurationError, match="NOR: no version was in use before version 1"):
        done(two, plan)
    assert all_aliases(two) == before
    assert {c: len(two.decisions(c)) for c in COUNTRIES} == logs


@pytest.mark.parametrize("asked", [Requester("ana", " "), Requester("", "why not")])
def test_nothing_moves_without_a_person_and_a_reason(two: Platform, asked: Requester) -> None:
    with pytest.raises(ConfigurationError, match=r"needs a (reason|person)"):
        apply_plan(two.context, plan_rollback(two.context, [COUNTRY]), asked, quietly)
    assert in_use(two, COUNTRY) == "2"


def test_a_damaged_version_is_refused_before_anything_moves(two: Platform) -> None:
    first = two.registry.version(registered_name(PRODUCT, "NOR"), "1")
    two.registry.tag(first, {"mlops_assets.sha256": "0" * 64})
    plan = plan_rollback(two.context, COUNTRIES)
    (problem,) = plan.problems
    assert problem.country == "NOR"
    assert "not the one that was registered" in problem.text
    with pytest.raises(ConfigurationError):
        done(two, plan)
    assert {in_use(two, country) for country in COUNTRIES} == {"2"}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_version_that_needs_lost_features_is_refused(two: Platform) -> None:
    features = two.frame("features", COUNTRY)
    made = two.store.current((PRODUCT, "features"), COUNTRY)
    assert made is not None
    two.store.write(
        (PRODUCT, "features"), COUNTRY, features.drop(columns="mean_of_week"), metadata={}
    )
    (problem,) = plan_rollback(two.context, [COUNTRY]).problems
    assert "needs the features mean_of_week" in problem.text


@pytest.mark.parametrize("version", ["2", "99"])
def test_a_version_that_is_in_use_or_unknown_is_refused(two: Platform, version: str) -> None:
    (problem,) = plan_rollback(two.context, [COUNTRY], version).problems
    assert "is in use already" in problem.text or "there are versions 1, 2" in problem.text


def test_if_a_country_fails_in_the_middle_those_before_it_are_moved_back(two: Platform) -> None:
    before = all_aliases(two)

    def break_down(moved: MovedCountry) -> None:
        if moved.ctx.country == "FRA" and moved.entry.after.champion == "1":
            raise OSError("the event log is full")

    with pytest.raises(RegistryError, match=r"failed in FRA.*the event log is full"):
        apply_plan(two.context, plan_rollback(two.context, COUNTRIES), ASKED, break_down)
    assert all_aliases(two) == before
    assert {shows(two, country) for country in COUNTRIES} == {"2"}
    verdicts = {c: two.decisions(c)["verdict"].tolist()[2:] for c in COUNTRIES}
    assert verdicts == {"DEU": ["rolled_back"] * 2, "FRA": ["rolled_back"] * 2, "NOR": []}
    assert "set back" in two.decisions("DEU")["reason"].iloc[-1]
    assert [change_set.state for change_set in change_sets(two.context).values()] == ["set back"]
    row = two.frame("model", "DEU").assign(train_rows=1)
    write_model(two, "DEU", row)
    decide(two, "DEU")
    assert in_use(two, "DEU") == "2", "it counts as if it had never been rolled back from"


def test_a_plan_that_is_out_of_date_moves_nothing(two: Platform) -> None:
    plan = plan_rollback(two.context, [COUNTRY])
    two.registry.point(registered_name(PRODUCT, COUNTRY), Aliases("1", "2"))
    with pytest.raises(RegistryError, match="as it was when this was planned"):
        done(two, plan)
    assert aliases(two, COUNTRY).champion == "1"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_an_unknown_change_set_is_refused_with_the_newest_ones(two: Platform) -> None:
    change_set = done(two, plan_rollback(two.context, [COUNTRY]))
    with pytest.raises(ConfigurationError, match=f"has no change set 'x'.*{change_set.id}"):
        plan_undo(two.context, "x")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_change_set_is_undone_once_and_not_over_what_happened_since(two: Platform) -> None:
    change_set = done(two, plan_rollback(two.context, [COUNTRY]))
    done(two, plan_undo(two.context, change_set.id))
    (problem,) = plan_undo(two.context, change_set.id).problems
    assert "undone already" in problem.text
    change_set = done(two, plan_rollback(two.context, [COUNTRY]))
    done(two, plan_promotion(two.context, [COUNTRY], registered(two, COUNTRY).version))
    (problem,) = plan_undo(two.context, change_set.id).problems
    assert "version 3 is in use now, not version 1" in problem.text


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_there_is_nothing_to_approve_where_nothing_waits(two: Platform) -> None:
    (problem,) = plan_approval(two.context, [COUNTRY]).problems
    assert "nothing waits for approval" in problem.text


# Killed in the middle


def killed(target: Any, platform: Platform, *arguments: Any) -> None:
    process = forks().Process(
        target=target, args=(platform.home, platform.product.folder, *arguments)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -9


# Nightly: before the first alias moved and after the last one; between them is the half.
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("recorded", marks=pytest.mark.nightly),
        "previous moved",
        pytest.param("champion moved", marks=pytest.mark.nightly),
    ],
)
def test_a_promotion_killed_at_any_moment_leaves_old_or_new_and_a_rerun_finishes_it(
    trained: Platform, moment: Moment
) -> None:
    propose(trained, COUNTRY, error=0.5)
    killed(decide_and_die, trained, COUNTRY, moment)
    assert in_use(trained, COUNTRY) == ("2" if moment == "champion moved" else "1")
    log = trained.decisions(COUNTRY)
    assert log["verdict"].tolist() == ["promoted", "promoted"], "never a champion without one"
    decide(trained, COUNTRY)
    assert aliases(trained, COUNTRY) == Aliases("2", "1", "2")
    assert shows(trained, COUNTRY) == "2"
    assert len(trained.decisions(COUNTRY)) == len(log)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
@pytest.mark.parametrize("moment", ["recorded", "previous moved", "champion moved"])
def test_a_rollback_killed_in_a_country_is_finished_by_the_next_champion_run(
    two: Platform, moment: Moment
) -> None:
    killed(roll_back_and_die, two, [COUNTRY], moment, 0)
    assert in_use(two, COUNTRY) == ("1" if moment == "champion moved" else "2")
    assert two.first_stale(COUNTRY, ASSETS) == "champion"
    decide(two, COUNTRY)
    assert aliases(two, COUNTRY) == Aliases("1", "2", "2")
    assert shows(two, COUNTRY) == "1"
    assert two.decisions(COUNTRY)["verdict"].iloc[-1] == "rolled_back"
    assert two.first_stale(COUNTRY, ASSETS) != "champion"


def test_a_change_set_killed_in_the_middle_is_finished_by_asking_for_the_same_again(
    two: Platform,
) -> None:
    killed(roll_back_and_die, two, list(COUNTRIES), "previous moved", 1)
    assert [in_use(two, country) for country in COUNTRIES] == ["1", "2", "2"]
    begun = open_change_set(two.context)
    assert begun is not None
    (problem,) = plan_rollback(two.context, ["NOR"]).problems
    assert begun.id in problem.text
    plan = plan_rollback(two.context, COUNTRIES)
    assert set(plan.frame()["note"]) == {"begun before, is finished"}
    change_set = done(two, plan)
    assert change_set.id == begun.id
    assert {in_use(two, country) for country in COUNTRIES} == {"1"}
    assert {shows(two, country) for country in COUNTRIES} == {"1"}
    assert {len(two.decisions(country)) for country in COUNTRIES} == {3}
    assert open_change_set(two.context) is None


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_change_set_killed_in_the_middle_can_be_undone_instead(two: Platform) -> None:
    before = all_aliases(two)
    killed(roll_back_and_die, two, list(COUNTRIES), "previous moved", 1)
    begun = open_change_set(two.context)
    assert begun is not None
    plan = plan_undo(two.context, begun.id)
    assert [move.country for move in plan.moves] == ["DEU", "FRA"]
    done(two, plan)
    assert all_aliases(two) == before
    assert open_change_set(two.context) is None


# Jobs


def launched(platform: Platform, kind: str, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    return platform.defs.resolve_job_def(f"{PRODUCT}_{kind}").execute_in_process(
        instance=platform.instance,
        run_config={"ops": {f"{PRODUCT}__{kind}": {"config": config}}},
        raise_on_error=False,
    )


def test_the_job_moves_the_countries_and_the_asset_shows_it_at_once(two: Platform) -> None:
    word = {"person": "ana", "reason": "prices went wrong"}
    result = launched(two, "rollback", {"countries": ["FRA", "DEU"], **word})
    assert result.success, failures(result)
    told = two.told("champion", COUNTRY)
    assert (told["champion_version"], told["verdict"]) == ("1", "rolled_back")
    assert told["person"] == "ana"
    evaluated = checks(result)["champion.equals_registry_alias"]
    assert evaluated.passed
    assert evaluated.partition in ("FRA", "DEU")
    row = two.decisions(COUNTRY).iloc[-1]
    assert row["dagster_run_id"] == result.run_id
    undone = launched(two, "undo", {"change_set": row["change_set"], **word})
    assert undone.success, failures(undone)
    assert two.told("champion", COUNTRY)["champion_version"] == "2"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_job_lists_what_stands_in_the_way_and_moves_nothing(two: Platform) -> None:
    config = {"all_countries": True, "version": "99", "person": "ana", "reason": "why"}
    result = launched(two, "promote", config)
    assert not result.success
    assert "promote is not possible in 3 of 3 countries" in failures(result)
    assert {in_use(two, country) for country in COUNTRIES} == {"2"}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_job_moves_nothing_if_another_version_is_in_use_than_was_listed(
    two: Platform,
) -> None:
    config = {"countries": [COUNTRY], "expected": {COUNTRY: "7"}, "person": "a", "reason": "b"}
    result = launched(two, "rollback", config)
    assert not result.success
    assert "other versions are in use than were listed (FRA: 2)" in failures(result)
    assert in_use(two, COUNTRY) == "2"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
@pytest.mark.parametrize("where", [{}, {"countries": ["FRA"], "all_countries": True}])
def test_the_form_wants_either_countries_or_all_of_them(
    two: Platform, where: dict[str, Any]
) -> None:
    result = launched(two, "rollback", {**where, "person": "ana", "reason": "why"})
    assert not result.success
    assert "Say which countries" in failures(result)
