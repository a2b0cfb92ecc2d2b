"""Score an accuracy test by MLCommons' own program: ``python -m sut.score RUN --inference DIR``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.command import Parser, a_path, command
from sut.errors import InputError, RunError, quoted
from sut.inputs import hashes, model
from sut.launch.options import add_runs, find_run, shared
from sut.plan.plan import Mode
from sut.report.publish import write_html, write_markdown
from sut.results import accuracy, answers, compliance_files, record, verification
from sut.results.judge import overall
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.rundir import RunDir, write_atomic

CLONE = "MLCommons' programs: git clone https://github.com/mlcommons/inference"
REFERENCES = "give the file with the expected answers (docs/benchmarks.md)"


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    run_dir = find_run(options.run, options)
    found = record.read(run_dir.root)
    phase, program = _phase(found, run_dir), _program(found, run_dir, options)
    log_dir = run_dir.loadgen(phase.name)
    words = [options.python, str(program), "--mlperf-log", str(log_dir / answers.FILE_NAME)]
    words += ["--reference-data", str(_existing(options.references, "--references", REFERENCES))]
    words += ["--tokenizer", str(options.tokenizer or model.locate(found.plan.model))]
    write_atomic(log_dir / accuracy.PROGRAM_OUTPUT, _output(words, program.parent))
    if phase.test.mode is Mode.TEST07:
        scores = accuracy.of_program(log_dir)
        compliance_files.write(log_dir, found.plan, test06=None, test09=None, test07=scores)
    scored = _judged(found, phase, run_dir)
    record.write(scored, run_dir)
    problem = write_html(scored, run_dir)
    write_markdown(scored, run_dir, problem or "")
    for name, value in (scored.phases[found.phases.index(phase)].accuracy or {}).items():
        print(f"{name} {value:,.10g}")
    print(f"{scored.headline}: {run_dir.report_html}")
    return scored.exit_code


def _phase(found: Record, run_dir: RunDir) -> PhaseRecord:
    """The accuracy test, or TEST07, of a run whose files are as recorded."""
    scored = (Mode.ACCURACY, Mode.TEST07)
    phase = next((each for each in found.phases if each.test.mode in scored), None)
    if phase is None:
        raise InputError(
            f"{run_dir.root}: has no accuracy test",
            hint=f"run it: python -m sut.submit --config {quoted(found.plan.benchmark)} "
            f"--scenario {found.plan.scenario} --mode accuracy",
        )
    if changes := verification.of_files(found, run_dir):
        raise InputError(
            f"{run_dir.root} was changed since it was recorded: {changes[0]}",
            hint=f"python -m sut.verify {quoted(run_dir.root)}",
        )
    return phase


def _program(found: Record, run_dir: RunDir, options: argparse.Namespace) -> Path:
    wanted = found.plan.accuracy.program if found.plan.accuracy else ""
    if not wanted:
        raise InputError(
            f"{run_dir.root}: benchmark {found.plan.benchmark} is scored here, by the run itself",
            hint=f"python -m sut.verdict {quoted(run_dir.root)}",
        )
    if options.inference is None or options.references is None:
        raise InputError(
            f"benchmark {found.plan.benchmark} is scored by a program, {wanted}",
            hint=f"python -m sut.score {quoted(run_dir.root)} --inference DIR --references FILE, "
            f"where DIR contains {wanted}; {CLONE}",
        )
    where = f"give the folder that contains {wanted}; {CLONE}"
    return _existing(options.inference / wanted, "--inference", where)


def _existing(path: Path, option: str, hint: str) -> Path:
    if not path.is_file():
        raise InputError(f"{option}: no file {path}", hint=hint)
    return path.resolve()


def _output(words: Sequence[str], folder: Path) -> bytes:
    """What the program prints. Raises RunError if it fails."""
    print(f"running {words[1]}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise InputError(f"cannot run {words[0]}: {error.strerror}", hint="--python PATH") from None
    if done.returncode != 0:
        raise RunError(
            f"{words[1]} exited with code {done.returncode}; its errors are above",
            hint="install its requirements (its README) for another Python: --python PATH",
            code="scorer",
        )
    return done.stdout


def _judged(found: Record, phase: PhaseRecord, run_dir: RunDir) -> Record:
    """The record with the phase judged again, by the scores that are there now."""
    log_dir = run_dir.loadgen(phase.name)

    def score(num_scored: int) -> dict[str, float]:
        return accuracy.score_phase(
            *(log_dir, found.plan),
            num_samples=num_scored,
            prompts=(),
            references=(),
            model_path=None,
        )

    again = verification.judged_again(
        phase,
        found.plan,
        run_dir,
        verification.nodes_of(found, phase),
        found.plan.chosen_qps(phase.test, found.chosen_qps),
        score,
    )
    again = msgspec.structs.replace(again, file_sha256=hashes.of_folder(log_dir))
    phases = tuple(again if each is phase else each for each in found.phases)
    verdict = overall(each.verdict for each in phases) if found.failure is None else found.verdict
    code = found.exit_code if found.failure else record.exit_code(verdict)
    return msgspec.structs.replace(found, phases=phases, verdict=verdict, exit_code=code)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.score",
        description="Score the accuracy test of a run with MLCommons' own program, and judge the "
        "run again. The program may run code that the model wrote.",
        epilog="exit codes: those of the run; 2 bad input, 3 the program failed",
        examples=("latest --inference ~/inference --references /data/acc/acc_eval_inputs.parquet",),
        parents=[shared("site", "root")],
    )
    add_runs(parser)
    parser.add_argument("--inference", metavar="DIR", type=a_path, help=f"a checkout: {CLONE}")
    parser.add_argument(
        "--references", metavar="FILE", type=a_path, help="MLCommons' file, before its conversion"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="with the program's requirements (default: this one)",
    )
    parser.add_argument("--tokenizer", metavar="DIR", help="default: the run's model")
    return parser.parse(argv)


if __name__ == "__main__":
    sys.exit(main())
