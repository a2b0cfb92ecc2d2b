"""The error of ``sut.simulate`` against runs of a real model on this machine.

Usage: python -m benchmarks.forecast [FOLDER]

One run measures its engines' steps; they forecast the other runs, which are made on the same
engines: Offline, and Server at three parts of the forecast peak. Takes some five minutes. FOLDER
keeps the runs (default: a temporary folder).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from sut.plan.benchmark import AUTO, Scenario
from sut.report.markdown import table
from sut.results import record
from sut.results.measures import Measures, measure
from sut.results.record import Record
from sut.run import forecast
from sut.run.forecast import Basis, Forecast
from sut.rundir import RunDir

SHARES = (0.5, 0.7, 0.85)  # of the forecast peak
KEEP_MIN = 5


def main() -> None:
    kept = tempfile.TemporaryDirectory()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else kept.name).resolve()
    measured = run(folder, Scenario.SERVER, AUTO)
    basis = forecast.of_run(measured, record.read(measured.record))
    peak = forecast.forecast(basis, 1).peak_qps
    assert peak is not None
    rows = [compared("Offline", basis, run(folder, Scenario.OFFLINE, 40))]
    for share in SHARES:
        made = run(folder, Scenario.SERVER, float(f"{share * peak:.3g}"))
        rows.append(compared(f"Server at {share:.0%} of the peak", basis, made))
    print(f"{basis.source}; simulated peak {peak:.3g} queries/s; load {os.getloadavg()[0]:.1f}\n")
    head = ["test", "tokens/s", "TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "TPOT p99, ms"]
    print("measured / simulated (error)\n\n" + table(head, rows))
    kept.cleanup()


def run(folder: Path, scenario: Scenario, target_qps: float | str) -> RunDir:
    """A performance test of the embedded model, on kept engines."""
    command = [sys.executable, "-m", "sut.submit", "--scenario", scenario, "--json", "--wait"]
    command += ["--keep-engine", str(KEEP_MIN), "--root", str(folder)]
    command += ["--set", f"target_qps={target_qps}"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode not in (0, 1):
        sys.exit(f"error: a run failed; its files: {folder}/latest")
    return RunDir(Path(msgspec.json.decode(done.stdout)["run_dir"]))


def compared(name: str, basis: Basis, made: RunDir) -> list[str]:
    """A row: what was measured, what was simulated, and the error of the latter."""
    found = record.read(made.record)
    seen = measure(found.phases[0].loadgen)
    settings = found.plan.loadgen_settings
    assert isinstance(settings.target_qps, float | int)
    plan = msgspec.structs.replace(
        basis.plan,
        scenario=found.plan.scenario,
        loadgen_name=found.plan.loadgen_name,
        loadgen_settings=settings,
    )
    given = msgspec.structs.replace(basis, plan=plan)
    simulated = forecast.forecast(given, 1, float(settings.target_qps))
    return [name, *cells(found, seen, simulated)]


def cells(found: Record, seen: Measures, simulated: Forecast) -> list[str]:
    pairs = [(seen.tokens_per_s, simulated.tokens_per_s)]
    if found.plan.scenario is Scenario.SERVER:
        for measured, quantiles in (
            (seen.ttft_ms, simulated.ttft_ms),
            (seen.tpot_ms, simulated.tpot_ms),
        ):
            pairs += [(measured.p50, quantiles.p50), (measured.p99, quantiles.p99)]
    texts = [
        f"{one:,.0f} / {other:,.0f} ({other / one - 1:+.0%})" if one else "-"
        for one, other in pairs
    ]
    return texts + ["-"] * (5 - len(texts))


if __name__ == "__main__":
    main()
