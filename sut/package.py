"""A submission to MLPerf: ``python -m sut.package --submitter X --division closed RUN...``

Builds the files that MLCommons reviews from the records of runs, or prints every reason why the
runs cannot be submitted. ``--preview`` builds them anyway, marked as not a submission.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sut.command import Parser, a_path, command
from sut.errors import EXIT_VALID, InputError
from sut.launch.options import add, add_runs, find_runs
from sut.plan import config
from sut.results import verification
from sut.submission import manifest, reasons, runs, system, tree
from sut.submission.reasons import Division
from sut.submission.runs import SCENARIOS, Run
from sut.submission.system import Fields
from sut.submission.texts import PREVIEW
from sut.submission.tree import Submission

DIVISIONS: tuple[Division, ...] = ("closed", "open")


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if options.check is not None:
        return _check(options.check)
    _check_submitter(options.submitter)
    output = options.output or Path(f"submission-{options.submitter}")
    submission = plan_submission(
        [run.root for run in find_runs(options.runs, options)],
        submitter=options.submitter,
        division=options.division,
        site=options.site,
        preview=options.preview,
    )
    tree.write(submission, output)
    print(_summary(submission, output))
    return EXIT_VALID


def _check(folder: Path) -> int:
    try:
        changes = manifest.changes(folder)
    except OSError as error:
        raise InputError(
            f"cannot read the submission ({error.filename or folder}): {error.strerror}"
        ) from None
    if changes:
        raise InputError(
            _listed(f"the submission was changed ({folder})", changes),
            hint="build it again from its runs",
        )
    print(f"{folder}: unchanged since it was built")
    return EXIT_VALID


def plan_submission(
    folders: Sequence[Path], *, submitter: str, division: Division, site: str | None, preview: bool
) -> Submission:
    """The submission of these runs. Raises InputError with every reason why they cannot be
    submitted; a ``preview`` is refused only if a run's files have changed or no test finished."""
    found = runs.read(folders)
    changes = [line for run in found for line in verification.of_files(run.record, run.run_dir)]
    results, twice = runs.results(found)
    why_not = [*twice, *reasons.why_not(found, results, division)]
    described, unknown = _describe(found[0], site)
    why_not += unknown
    if results and not changes:
        why_not += _not_as_recorded(found)
    if changes or not results:
        hint = "run again; --preview cannot be built from these runs either"
        raise InputError(_listed("these runs cannot be submitted", [*changes, *why_not]), hint=hint)
    if why_not and not preview:
        hint = "to build it anyway, marked as not a submission, add --preview"
        raise InputError(_listed("these runs cannot be submitted", why_not), hint=hint)
    fields = {"division": division, "submitter": submitter, **described}
    return Submission(
        submitter=submitter,
        division=division,
        system={name: fields.get(name, _filler(name)) for name in system.FIELDS},
        results=results,
        against=why_not if preview else None,
    )


def _not_as_recorded(found: Sequence[Run]) -> list[str]:
    """Where the runs' inputs and verdicts are not those of their files. A run takes minutes where
    its answers are scored, so each is named on standard error."""
    lines = []
    for run in found:
        print(f"judging {run.name} again from its files", file=sys.stderr, flush=True)
        samples, model_path, inputs = verification.of_inputs(run.record)
        judged = verification.of_verdicts(run.record, run.run_dir, samples, model_path)
        lines += [*inputs.differences, *judged.differences]
    return lines


def _describe(run: Run, site: str | None) -> tuple[Fields, list[str]]:
    """The known fields of the system, and a line for each field that is missing or contradicted."""
    plan, environment = run.record.plan, run.record.environment
    where = site or plan.site
    try:
        given = config.load_site(where).system
    except InputError as error:
        problem = str(error).replace("\n", "; ")
        return system.measured(plan, environment), [f"{problem}; add --site with the runs' site"]
    fields = system.describe(given, plan, environment)
    problems = system.contradictions(given, plan, environment)
    if missing := system.missing(fields):
        problems.append(f"the file of site {where} lacks under system: {', '.join(missing)}")
    return fields, problems


def _filler(name: str) -> str:
    return "" if name in system.OPTIONAL else "not given"


def _check_submitter(submitter: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", submitter):
        raise InputError(
            f"--submitter {submitter!r} is not a folder name",
            hint="use letters, digits, '_', '-' and '.', e.g. --submitter Example",
        )


def _listed(message: str, reasons: Sequence[str]) -> str:
    return "\n".join([f"{message}:", *(f"  - {reason}" for reason in reasons)])


def _summary(submission: Submission, output: Path) -> str:
    plan = submission.results[0].main.run.record.plan
    scenarios = ", ".join(SCENARIOS[result.scenario] for result in submission.results)
    lines = [
        f"built {output}: {submission.division}, {reasons.benchmark_name(plan)}, {scenarios}, "
        f"system {submission.system_id}"
    ]
    if submission.against is not None:
        lines += [f"  {PREVIEW}", *(f"  - {why}" for why in submission.against)]
    lines.append("next: run MLCommons' checker (docs/submission.md)")
    return "\n".join(lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.package",
        description="Build the files of an MLPerf Inference submission from runs.",
        epilog="exit codes: 0 built (--check: unchanged), 2 refused (--check: changed)",
        examples=("--submitter NAME --division closed RUN RUN", "--check submission-NAME"),
    )
    add_runs(parser, "runs", nargs="*")
    parser.add_argument("--submitter", metavar="NAME", help="your organization")
    parser.add_argument("--division", choices=DIVISIONS, help="division of MLPerf")
    add(parser, "site", help="site whose file describes the system (default: the runs' site)")
    add(parser, "root")
    parser.add_argument(
        "--output",
        type=a_path,
        metavar="FOLDER",
        help="folder to create (default: submission-NAME)",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="build even if the runs cannot be submitted; every file is marked",
    )
    parser.add_argument(
        "--check", type=a_path, metavar="FOLDER", help="check that no file of a submission changed"
    )
    options = parser.parse(argv)
    needed = {
        "--submitter": options.submitter,
        "--division": options.division,
        "RUN": options.runs,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing and options.check is None:
        parser.missing(missing)
    return options


if __name__ == "__main__":
    sys.exit(main())
