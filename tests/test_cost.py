"""The cost of a million output tokens: from the price to every list of figures."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loadgen_logs import smallest_valid
from plans import plan_of
from records import completed, performance, render

from sut.history import figures, listing, page
from sut.history.row import Row
from sut.plan import placement
from sut.plan.plan import Mode, Node, Plan
from sut.report.summary import summary
from sut.results import cost, mllog, sameness
from sut.results.mllog import DetailLog
from sut.rundir import RunDir


def log(**values: Any) -> DetailLog:
    known = {"effective_scenario": "Server", "result_completed_tokens_per_second": 500.0}
    return DetailLog(path="", values=known | values, errors=())


def test_every_node_is_paid_for() -> None:
    one = plan_of("replay", sets=["site.price_per_node_hour=1.8"])
    two = msgspec.structs.replace(one, nodes=(Node(), Node()))
    assert cost.per_million_tokens(one, Mode.PERFORMANCE, log()) == pytest.approx(1.0)
    assert cost.per_million_tokens(two, Mode.PERFORMANCE, log()) == pytest.approx(2.0)


def on_cluster(nodes: str, *prices: str, site: str = "null") -> Plan:
    each = (f"{{name: n{i}, cpus: [0], {price}}}" for i, price in enumerate(prices))
    sets = [f"site.nodes=[{', '.join(each)}]", f"site.price_per_node_hour={site}"]
    return plan_of("replay", site="devcluster", nodes=nodes, sets=sets)


@pytest.mark.parametrize(
    ("nodes", "prices", "site", "expected"),
    [
        ("n0,n1", ("price_per_node_hour: 1.8", "price_per_node_hour: 5.4"), "null", 4.0),
        ("n1", ("price_per_node_hour: 1.8", "price_per_node_hour: 5.4"), "null", 3.0),
        ("n0,n1", ("price_per_node_hour: 5.4", "gpus: 0"), "1.8", 4.0),
        ("n0,n1", ("price_per_node_hour: 5.4", "gpus: 0"), "null", None),
        ("1", ("price_per_node_hour: 1.8", "price_per_node_hour: 5.4"), "null", 2.0),
    ],
)
def test_nodes_may_have_prices_of_their_own(
    nodes: str, prices: tuple[str, ...], site: str, expected: float | None
) -> None:
    plan = on_cluster(nodes, *prices, site=site)
    found = cost.per_million_tokens(plan, Mode.PERFORMANCE, log())
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_node_that_slurm_chose_is_paid_for() -> None:
    plan = on_cluster("1", "price_per_node_hour: 1.8", "price_per_node_hour: 5.4")
    chosen = placement.on_nodes(plan, ["n1"])
    assert cost.per_million_tokens(chosen, Mode.PERFORMANCE, log()) == pytest.approx(3.0)


def test_offline_has_its_own_rate() -> None:
    plan = plan_of("replay", sets=["site.price_per_node_hour=1.8"])
    offline = log(effective_scenario="Offline", result_tokens_per_second=250.0)
    assert cost.per_million_tokens(plan, Mode.PERFORMANCE, offline) == pytest.approx(2.0)


def test_no_cost_without_a_price_a_rate_or_a_measurement() -> None:
    priced = plan_of("replay", sets=["site.price_per_node_hour=1.8"])
    assert cost.per_million_tokens(plan_of("replay"), Mode.PERFORMANCE, log()) is None
    assert cost.per_million_tokens(priced, Mode.ACCURACY, log()) is None
    ended = log(result_completed_tokens_per_second=None)
    assert cost.per_million_tokens(priced, Mode.PERFORMANCE, ended) is None


def test_a_price_makes_no_two_plans_differ() -> None:
    record = completed(performance(smallest_valid()))
    plan = msgspec.structs.replace(
        record.plan,
        price_per_node_hour=2.0,
        node_prices={"jw2": 3.0},
        stop_when_hopeless=True,
        measure_overhead=True,
    )
    assert plan.digest() == record.plan.digest()
    other = msgspec.structs.replace(record, plan=plan)
    assert sameness.of_record(other) == sameness.of_record(record)


@pytest.mark.parametrize("known", [True, False])
def test_is_shown_where_it_is_known(tmp_path: Path, known: bool) -> None:
    value = 1.25 if known else None
    record = completed(performance(smallest_valid(), cost_per_million_tokens=value))
    text = "1.25 per million output tokens"
    assert (text in summary(record, RunDir(tmp_path))) is known
    assert ("per million output tokens" in render(record)) is known
    assert (figures.COST in figures.figures(record)) is known

    rows = [
        Row(path="a", mtime_ns=1, size=1, cost_per_million_tokens=value),
        Row(path="b", mtime_ns=1, size=1),
    ]
    for width in (None, 80):
        assert (listing.COST in listing.to_table(rows, width)) is known
    shown = page.render(tmp_path, rows, datetime(2026, 1, 1))
    assert (f">{listing.COST}</button>" in shown) is known
    first, _ = csv.DictReader(io.StringIO(listing.to_csv(rows)))
    assert first["cost_per_million_tokens"] == ("1.25" if known else "")


def test_the_log_of_the_example_has_a_rate() -> None:
    plan = plan_of("replay", sets=["site.price_per_node_hour=3.6"])
    found = mllog.read(smallest_valid())
    rate = found.number("result_completed_tokens_per_second")
    assert rate is not None
    expected = pytest.approx(1000 / rate)
    assert cost.per_million_tokens(plan, Mode.PERFORMANCE, found) == expected
