"""A submission to MLPerf: ``python -m sut.package --submitter X --division closed RUN...``

Builds the tree of files that MLCommons reviews from the records of runs, and refuses runs that may
not be submitted, with every reason. ``--preview`` builds all the same, marked as no submission.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.plan import config
from sut.submission import manifest, reasons, runs, system, tree
from sut.submission.reasons import Division
from sut.submission.runs import SCENARIOS, Run
from sut.submission.system import Fields
from sut.submission.texts import PREVIEW
from sut.submission.tree import Submission

DIVISIONS: tuple[Division, ...] = ("closed", "open")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is 0 when the tree was built, or is as it was built; 2 when it was refused."""
    options = _options(argv)
    if options.check is not None:
        return _check(options.check)
    output = options.output or Path(f"submission-{options.submitter}")
    submission = plan_submission(
        [Path(run) for run in options.runs],
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
        raise InputError(f"{error.filename or folder}: {error.strerror}") from None
    if changes:
        lines = ["not as it was built:", *(f"  - {change}" for change in changes)]
        raise InputError("\n".join([*lines, "Build it again from its runs."]))
    print(f"{folder}: every file is as it was built")
    return EXIT_VALID


def plan_submission(
    folders: Sequence[Path], *, submitter: str, division: Division, site: str | None, preview: bool
) -> Submission:
    """What is to be submitted of these runs. Raises InputError with every reason against it; with
    ``preview`` only for runs whose files are not those that were judged."""
    _check_submitter(submitter)
    found = runs.read(folders)
    changes = [change for run in found for change in runs.changes(run)]
    results, twice = runs.results(found)
    why_not = [*twice, *reasons.why_not(found, results, division)]
    described, asked = _describe(found[0], site)
    why_not += asked
    if changes or not results:
        raise InputError(_refusal([*changes, *why_not], "This is refused with --preview, too."))
    if why_not and not preview:
        hint = "To see the tree all the same, marked as no submission: --preview"
        raise InputError(_refusal(why_not, hint))
    fields = {"division": division, "submitter": submitter, **described}
    return Submission(
        submitter=submitter,
        division=division,
        system={name: fields.get(name, _filler(name)) for name in system.FIELDS},
        results=results,
        against=why_not if preview else None,
    )


def _describe(run: Run, site: str | None) -> tuple[Fields, list[str]]:
    """What is known of the system, and a line for everything that is not or is contradicted."""
    plan, environment = run.record.plan, run.record.environment
    where = site or plan.site
    try:
        given = config.load_site(where).system
    except InputError as error:
        return system.measured(plan, environment), [f"{error} Give the runs' site with --site"]
    fields = system.describe(given, plan, environment)
    asked = system.contradictions(given, plan, environment)
    if missing := system.missing(fields):
        asked.append(
            f"the site's file ({where}) must say under system: what no run measures: "
            f"{', '.join(missing)}"
        )
    return fields, asked


def _filler(name: str) -> str:
    return "" if name in system.OPTIONAL else "not given"


def _check_submitter(submitter: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", submitter):
        raise InputError(
            f"--submitter {submitter!r}: it names a folder: letters, digits, '_', '-' and '.'"
        )


def _refusal(why_not: Sequence[str], hint: str) -> str:
    return "\n".join(["these runs can't be submitted:", *(f"  - {why}" for why in why_not), hint])


def _summary(submission: Submission, output: Path) -> str:
    plan = submission.results[0].main.run.record.plan
    scenarios = ", ".join(SCENARIOS[result.scenario] for result in submission.results)
    lines = [
        f"{output}: {submission.division}, {reasons.benchmark_name(plan)}, {scenarios}, system "
        f"{submission.system_id}"
    ]
    if submission.against is not None:
        lines += [f"  {PREVIEW}", *(f"  - {why}" for why in submission.against)]
    lines.append("  next: MLCommons' own checker, as docs/submission.md tells")
    return "\n".join(lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.package",
        description="Build the tree of files of an MLPerf Inference submission from runs.",
        epilog="exit codes: 0 built, 2 refused",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run directories")
    parser.add_argument("--submitter", metavar="NAME", help="your organization")
    parser.add_argument("--division", choices=DIVISIONS)
    parser.add_argument(
        "--site", metavar="NAME|FILE", help="whose system: it is (default: the runs' site)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a new folder (default: submission-NAME)"
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="build in spite of what stands against it, marked as no submission",
    )
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="only say whether a tree is as it was built"
    )
    options = parser.parse_args(argv)
    if options.check is None and not (options.submitter and options.division and options.runs):
        parser.error("--submitter, --division and at least one RUN are needed")
    return options


if __name__ == "__main__":
    sys.exit(main())
