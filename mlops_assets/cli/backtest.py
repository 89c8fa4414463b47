"""The command `backtest`: policies of retraining over the history there is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_assets.cli.base import AsJson, app, context_of, print_table, product_named, say
from mlops_assets.cli.propose import ProposeOptions
from mlops_assets.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.ml.backtest.backtest import BacktestResult
    from mlops_assets.ml.backtest.data import BacktestData
    from mlops_assets.ml.backtest.policies import Policy
    from mlops_assets.product import Product
    from mlops_assets.spec import ProductSpec

CHANGEABLE = (
    "monitoring",
    "retraining",
    "decision",
    "gates",
    "split",
    "evaluation",
    "tuning",
    "predictions",
)
"""Sections of a product that `--set` can change: those that features do not depend on."""
_NOTHING = "Nothing was trained."


_HELP = (
    "What policies of retraining would have been worth: the same functions that train, judge, "
    "watch and decide, moment by moment over the features there are. Nothing is stored but the "
    "chart, and with --propose the proposal.\n\n"
    "Example: mlops-assets backtest power_price --from 2020-01-01 --to 2023-12-31 --policy never "
    "--policy 'every 30d' --policy drift\n\n"
    "--propose searches values of `retraining`, `decision` and `monitoring` on this past: of the "
    "policies whose error is at most 1 % above the lowest (3 % where that may be chance) the one "
    "with the fewest trainings. The newest third is not searched. There the choice is compared "
    "with the policy in use, and the YAML to adopt is printed only where it is better for certain, "
    "or trains less and is for certain not worse by more than 1 %. What was found is stored.\n\n"
    "Example: mlops-assets backtest power_price --propose --minutes 10"
)


@app.command(help=_HELP)
def backtest(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    begin: Annotated[
        str,
        typer.Option("--from", help="First moment, such as 2020-01-01; --propose can do without."),
    ] = "",
    end: Annotated[
        str, typer.Option("--to", help="Last day that counts; --propose can do without.")
    ] = "",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="never, drift, or such as 'every 30d'; repeat for more."),
    ] = None,
    *,
    propose: Annotated[
        bool, typer.Option("--propose", help="Search a better policy, judge it, print the YAML.")
    ] = False,
    most: Annotated[int, typer.Option(min=2, help="With --propose: policies that are tried.")] = 24,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="With --propose: fewer policies go on where it would take longer; what "
            "is found then depends on the machine.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --propose: a file for the YAML as well.")
    ] = None,
    step: Annotated[str, typer.Option(help="From a moment to the next: 1d, 1w.")] = "1w",
    country: Annotated[list[str] | None, typer.Option(help="A country; repeat for more.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A value to try, such as monitoring.min_effect=0.4."),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Where the chart goes; default: here, by product.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That train side by side; default: one a core.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk, then print a table and where the chart is; or search and print a proposal."""
    from mlops_assets.ml.backtest.policies import parse_period

    found, length = product_named(product), parse_period(step)
    cores = processes or os.cpu_count() or 1
    if propose:
        _refuse_with_propose(policy, change, chart)
        _propose(
            found,
            (begin, end),
            country or [],
            ProposeOptions(most, minutes, length, cores, out),
            as_json=as_json,
        )
        return
    _refuse_without_propose(begin, end, policy)
    policies = _policies(policy or [])
    times = _times(begin, end)
    spec = changed(found.spec, change or [])
    past, note = _past(found, spec, times, country or [])
    walks = _walked(past, policies, times, length, processes=cores, quiet=as_json)
    target = (chart or Path(f"{found.name}_backtest.svg")).resolve()
    _draw(target, found, past, walks)
    if as_json:
        say(json.dumps(_as_dict(past, walks, length, target, note=note), indent=1))
        return
    _print(found, past, walks, length, target=target, note=note)


# The older name of the command, which scripts may have.
app.command("replay", help=_HELP, hidden=True)(backtest)


def _refuse_with_propose(
    policy: Sequence[str] | None, change: Sequence[str] | None, chart: Path | None
) -> None:
    given = {"--policy": policy, "--set": change, "--chart": chart}
    if used := [name for name, value in given.items() if value]:
        raise ConfigurationError(
            f"--propose goes without {', '.join(used)}: it tries policies of its own beside the "
            "one in use.",
            stored=_NOTHING,
            way_out=f"Leave out {', '.join(used)}, or --propose.",
        )


def _refuse_without_propose(begin: str, end: str, policy: Sequence[str] | None) -> None:
    given = {"--from": begin, "--to": end, "--policy": policy}
    if missing := [name for name, value in given.items() if not value]:
        raise ConfigurationError(
            f"Without --propose a backtest needs {', '.join(missing)}.",
            stored=_NOTHING,
            way_out="Such as: --from 2020-01-01 --to 2023-12-31 --policy never --policy drift",
        )


def _propose(
    product: Product,
    times: tuple[str, str],
    countries: Sequence[str],
    options: ProposeOptions,
    *,
    as_json: bool,
) -> None:
    from mlops_assets.cli.propose import chosen_moments, propose_policy
    from mlops_assets.ml.backtest.data import backtest_data
    from mlops_assets.stages.backtest.data import backtest_countries, stored_features

    frames = stored_features(context_of(product))
    chosen = backtest_countries(product, frames, countries)
    past, note = backtest_data(product.spec, frames, _last(frames, chosen, times[1]), chosen)
    moments = chosen_moments(product, past, times, options.step)
    propose_policy(product, past, moments, options, note=note, as_json=as_json)


def _last(frames: dict[str, pd.DataFrame], countries: Sequence[str], end: str) -> pd.Timestamp:
    """The end of the last day that counts; by default of the newest label that is known."""
    import pandas as pd

    from mlops_assets.settings import parse_moment

    day = pd.Timedelta(days=1) - pd.Timedelta(1)
    if end:
        return pd.Timestamp(parse_moment(end)).tz_localize(None).normalize() + day
    rows = [frames[country] for country in countries]
    known = [frame.loc[frame["label"].notna(), "label_time"].max() for frame in rows]
    newest = max((each for each in known if not pd.isna(each)), default=None)
    if newest is None:
        raise ConfigurationError(
            "No label is known yet, so that there is nothing to search on.",
            stored=_NOTHING,
            way_out="Wait for labels; how long that takes says `target.matures_after`.",
        )
    return newest.normalize() + day


def changed(spec: ProductSpec, changes: Sequence[str]) -> ProductSpec:
    """The product with values to try.

    Args:
        spec: as its YAML has it.
        changes: such as monitoring.min_effect=0.4.

    Raises:
        ConfigurationError: one cannot be read, or the product is not valid with it.
    """
    from pydantic import ValidationError

    from mlops_assets.spec import ProductSpec

    content = spec.model_dump()
    for text in changes:
        section, key, value = _change(text)
        content[section] = {**content[section], key: value}
    try:
        return ProductSpec.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(each) for each in one['loc'])}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigurationError(
            f"The product is not valid with {', '.join(changes)}: {'; '.join(problems)}.",
            stored=_NOTHING,
            way_out="Correct --set; the keys are those of the product's defs.yaml.",
            culprits={"set": list(changes)},
        ) from error


def _change(text: str) -> tuple[str, str, Any]:
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key) or section not in CHANGEABLE:
        raise ConfigurationError(
            f"--set {text!r} is not a value of {', '.join(CHANGEABLE)}.",
            stored=_NOTHING,
            way_out="Write it as section.key=value, such as monitoring.min_effect=0.4.",
            culprits={"set": text},
        )
    try:
        return section, key, json.loads(value)
    except json.JSONDecodeError:
        return section, key, value.strip()


def _policies(texts: Sequence[str]) -> list[Policy]:
    from mlops_assets.ml.backtest.policies import parse_policy

    policies = [parse_policy(text) for text in texts]
    names = [each.name for each in policies]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"The policy {name!r} is given twice.", stored=_NOTHING, way_out="Give each once."
            )
    return policies


def _times(begin: str, end: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The first moment, and the last one of the last day."""
    import pandas as pd

    from mlops_assets.settings import parse_moment

    start, last = (pd.Timestamp(parse_moment(each)).tz_localize(None) for each in (begin, end))
    if last <= start:
        raise ConfigurationError(
            f"--to {end} is not after --from {begin}.",
            stored=_NOTHING,
            way_out="Give the earlier date with --from.",
            culprits={"from": begin, "to": end},
        )
    whole_day = last == last.normalize()
    return start, last + pd.Timedelta(days=1) - pd.Timedelta(1) if whole_day else last


def _past(
    product: Product,
    spec: ProductSpec,
    times: tuple[pd.Timestamp, pd.Timestamp],
    countries: Sequence[str],
) -> tuple[BacktestData, str]:
    from mlops_assets.ml.backtest.data import backtest_data
    from mlops_assets.stages.backtest.data import backtest_countries, stored_features

    frames = stored_features(context_of(product))
    chosen = backtest_countries(product, frames, countries)
    first = min(frames[each]["event_time"].min() for each in chosen)
    last = max(frames[each]["event_time"].max() for each in chosen)
    start, end = times
    if start <= first or end.normalize() > last.normalize():
        raise ConfigurationError(
            f"{product.name} has events from {first:%Y-%m-%d} to {last:%Y-%m-%d}; a walk from "
            f"{start:%Y-%m-%d} to {end:%Y-%m-%d} needs history before it, and the truth after.",
            stored=_NOTHING,
            way_out="Choose --from and --to in between, with enough history to train on before.",
            culprits={"from": str(start), "to": str(end)},
        )
    return backtest_data(spec, frames, end, chosen)


def _walked(
    past: BacktestData,
    policies: Sequence[Policy],
    times: tuple[pd.Timestamp, pd.Timestamp],
    step: pd.Timedelta,
    *,
    processes: int,
    quiet: bool,
) -> tuple[BacktestResult, ...]:
    from mlops_assets.ml.backtest.backtest import run_backtest
    from mlops_assets.ml.backtest.data import backtest_moments
    from mlops_assets.runtime.headless.parallel_trainer import ParallelTrainer

    moments = backtest_moments(times[0], times[1], step)
    with (
        ParallelTrainer(past, processes) as trainer,
        typer.progressbar(length=len(moments), label="backtest", file=stderr_unless(quiet)) as bar,
    ):
        walks = run_backtest(
            past, policies, moments, trainer, progress=lambda moment: bar.update(1)
        )
    if not any(len(each.trainings) for each in walks):
        raise ConfigurationError(
            f"No country had enough rows to be trained up to {moments[-1]:%Y-%m-%d}.",
            stored=_NOTHING,
            way_out="Choose later dates: `split` says how much history training and holdout need.",
        )
    return walks


def stderr_unless(quiet: bool) -> Any:
    """Where progress is shown: nowhere if `quiet`."""
    return open(os.devnull, "w") if quiet else typer.get_text_stream("stderr")


def _draw(
    target: Path, product: Product, past: BacktestData, walks: Sequence[BacktestResult]
) -> None:
    from mlops_assets.ml.backtest.report import chart

    title = f"{product.name}: {past.spec.metric} of {len(past.countries)} countries by month"
    drawn = chart(past.spec.metric, past.spec.target.unit, walks, title=title)
    target.write_text(drawn, encoding="utf-8")


def _print(
    product: Product,
    past: BacktestData,
    walks: Sequence[BacktestResult],
    step: pd.Timedelta,
    *,
    target: Path,
    note: str,
) -> None:
    from mlops_assets.ml.backtest.report import summary

    table = summary(past.spec.metric, walks, step)
    if note:
        say(f"The split of {product.name} has fixed dates: {note}.")
    title = f"{product.name}: {past.spec.metric} ({past.spec.target.unit})"
    print_table(title, table.map(_shown))
    say(f"Chart: {target}")


def _shown(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if value != value:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _as_dict(
    past: BacktestData,
    walks: Sequence[BacktestResult],
    step: pd.Timedelta,
    target: Path,
    *,
    note: str,
) -> dict[str, Any]:
    from mlops_assets.ml.backtest import report as report

    metric = past.spec.metric

    def records(frame: pd.DataFrame) -> Any:
        return json.loads(frame.to_json(orient="records", date_format="iso"))

    return {
        "metric": metric,
        "policies": records(report.summary(metric, walks, step)),
        "by_country": records(report.by_country(metric, walks)),
        "by_month": records(report.by_month(metric, walks)),
        "trainings": records(report.trainings(walks)),
        "note": note,
        "chart": str(target),
    }
