"""What was used and what it cost, by model or whatever else, and what this month will have come to at its end.

It reads the ledger in the data folder, also while the server runs, and shows all tenants unless --tenant names one. Times are UTC.
"""

import argparse
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast, get_args

import msgspec
from rich.console import Console
from rich.table import Table

from cauce.bootstrap.keeping import ledger_on_disk
from cauce.cli.configuration import configured
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.terminal import complain, line
from cauce.cli.words import figure, say
from cauce.domain.errors import CauceError
from cauce.domain.histogram import percentiles
from cauce.ports.usage import ALL_TENANTS, Dimension, Group, Query, Report, Tenants
from cauce.server.routes.usage import days_query, forecast_body, span
from cauce.system.clock import SystemClock
from cauce.wire.native.usage import BandBody, ForecastBody, usage_body

UNREADABLE = 1

_BARS = 31
_WIDTH = 40
_MOST_GROUPS = 100


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument(
        "--by", default="model", choices=get_args(Dimension), help="what to tell apart (default: model)", metavar="WHAT"
    )
    command.add_argument(
        "--from", dest="since", metavar="TIME", help="a date, a time or UNIX seconds (default: this month)"
    )
    command.add_argument("--to", dest="until", metavar="TIME", help="the same; a date includes its day (default: now)")
    command.add_argument("--tenant", help="this tenant only")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    configuration_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell."""
    config = configured(arguments)
    clock = SystemClock()
    reading = ledger_on_disk(config, clock)
    if reading is None:
        complain(say("there is no ledger in {folder} yet: `cauce serve` keeps one", folder=config.data_dir))
        return UNREADABLE
    tenant: Tenants = arguments.tenant if arguments.tenant is not None else ALL_TENANTS
    by = (cast(Dimension, arguments.by),)
    try:
        since, until = span(arguments.since, arguments.until, clock.now())
        told = reading.report(Query(tenant, since, until, by))
        days = reading.report(Query(tenant, since, until, ("day",)))
        forecast = forecast_body(reading.report(days_query(tenant, clock.now())), clock.now())
    except (CauceError, sqlite3.Error) as error:
        complain(
            error.message if isinstance(error, CauceError) else say("the ledger cannot be read: {error}", error=error)
        )
        return MISUSE if isinstance(error, CauceError) and error.code == "invalid_request" else UNREADABLE
    finally:
        reading.close()
    if arguments.json:
        usage = msgspec.to_builtins(usage_body(told, by, len(told.groups)))
        print(msgspec.json.format(msgspec.json.encode({**usage, "forecast": forecast})).decode())
        return 0
    _show(told, days, forecast, arguments.by)
    return 0


def _show(told: Report, days: Report, forecast: ForecastBody, by: str) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Nothing is folded for a program that reads lines.
        console.width = 10_000
    console.print(say("{since} to {until} (UTC)", since=_time(told.since), until=_time(told.until)), style="bold")
    if not told.total.sums.attempts:
        console.print(say("nothing was used"))
        return
    console.print(_table(told, by))
    for remark in _remarks(told):
        console.print(remark)
    if len(days.groups) > 1:
        console.print()
        for bar in _chart(days.groups[-_BARS:]):
            console.print(bar)
    console.print()
    console.print(_outlook(forecast))


def _table(told: Report, by: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, show_footer=True)
    total = told.total
    table.add_column(_heading(by), say("total"), overflow="fold")
    for heading, footer in zip(_headings(), _figures(total), strict=True):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    for group in told.groups[:_MOST_GROUPS]:
        table.add_row(line(group.by[0]) or "-", *_figures(group))
    return table


def _headings() -> Sequence[str]:
    return (
        say("requests"),
        say("answered"),
        say("failed"),
        say("tokens in"),
        say("tokens out"),
        say("USD"),
        say("p50 s"),
        say("p95 s"),
        say("liked"),
    )


def _heading(by: str) -> str:
    names: dict[str, str] = {
        "provider": say("provider"),
        "model": say("model"),
        "endpoint": say("endpoint"),
        "key": say("key"),
        "user": say("user"),
        "conversation": say("conversation"),
        "level": say("level"),
        "day": say("day"),
        "tenant": say("tenant"),
        "deployment": say("deployment"),
    }
    return names[by]


def _figures(group: Group) -> Sequence[str]:
    sums, votes = group.sums, group.votes
    middle, late = percentiles(group.spread.latency, (0.5, 0.95))
    thumbs = votes.up + votes.down
    return (
        figure(f"{sums.requests:,}"),
        figure(f"{sums.answered:,}"),
        figure(f"{group.error_rate:.1%}"),
        figure(f"{sums.input_tokens:,}"),
        figure(f"{sums.output_tokens:,}"),
        _dollars(sums.cost),
        "-" if middle is None else figure(f"{middle:.2f}"),
        "-" if late is None else figure(f"{late:.2f}"),
        f"{votes.up / thumbs:.0%}" if thumbs else "-",
    )


def _remarks(told: Report) -> list[str]:
    total, remarks = told.total, list[str]()
    if total.estimated.attempts:
        remarks.append(
            say(
                "of which estimated: {tokens} tokens, {dollars} USD",
                tokens=figure(f"{total.estimated.tokens:,}"),
                dollars=_dollars(total.estimated.cost),
            )
        )
    if total.unpriced.attempts:
        remarks.append(
            say(
                "without a known price, so not in the sum: {tokens} tokens", tokens=figure(f"{total.unpriced.tokens:,}")
            )
        )
    if len(told.groups) > _MOST_GROUPS:
        remarks.append(say("{count} more are left out; --json shows them", count=len(told.groups) - _MOST_GROUPS))
    return remarks


def _chart(days: Sequence[Group]) -> list[str]:
    """A bar per day: of its cost, or of its tokens where nothing has a price."""
    priced = any([group.sums.cost > 0 for group in days])
    values = [group.sums.cost if priced else float(group.sums.tokens) for group in days]
    most = max(values) or 1.0
    return [
        f"{group.by[0]}  {_bar(value / most)} {_dollars(value) if priced else figure(f'{value:,.0f}')}"
        for group, value in zip(days, values, strict=True)
    ]


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[part]).ljust(_WIDTH)


def _outlook(forecast: ForecastBody) -> str:
    priced = forecast.cost.so_far > 0 or forecast.tokens.so_far == 0
    band = forecast.cost if priced else forecast.tokens
    facts: dict[str, Any] = {name: _amount(getattr(band, name), priced) for name in BandBody.__struct_fields__}
    if band.expected is None:
        return say("this month: {so_far} so far; too little is known for a forecast", **facts)
    if band.low is None:
        return say("this month: {so_far} so far, about {expected} at its end (too little is known for a band)", **facts)
    return say("this month: {so_far} so far, about {expected} at its end ({low} to {high}, 4 times in 5)", **facts)


def _amount(value: float | None, priced: bool) -> str:
    if value is None:
        return "-"
    return f"{_dollars(value)} USD" if priced else say("{count} tokens", count=figure(f"{value:,.0f}"))


def _dollars(value: float) -> str:
    return figure(f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.4f}")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
