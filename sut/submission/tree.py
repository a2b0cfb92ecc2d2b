"""The files of a submission, as MLCommons' checker of rounds v6.0 and v6.1 expects them."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sut.errors import InputError
from sut.machine.environment import Git
from sut.plan.plan import Mode
from sut.results import answers, compliance_files
from sut.rundir import write_atomic
from sut.submission import manifest, source, texts
from sut.submission.reasons import Division, benchmark_name
from sut.submission.runs import SCENARIOS, Part, Result
from sut.submission.system import Fields

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
TRUNCATED = ("TEST07", "TEST09")  # compliance tests whose log MLCommons' script truncates


class Submission(NamedTuple):
    """``against`` are the reasons why a preview cannot be submitted; None for a submission."""

    submitter: str
    division: Division
    system: Fields
    results: Sequence[Result]
    against: texts.Against

    @property
    def preview(self) -> bool:
        return self.against is not None

    @property
    def system_id(self) -> str:
        """The system's name as a folder's name."""
        return re.sub(r"[^A-Za-z0-9_.+-]+", "_", str(self.system["system_name"]))


def write(submission: Submission, output: Path) -> None:
    """Write the whole tree to ``output``, or nothing. Raises InputError if it exists or cannot be
    written."""
    if output.exists():
        raise InputError(
            f"cannot build the submission ({output}): the folder exists",
            hint=f"rm -r {output}, or choose another folder: --output FOLDER",
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            tree = Path(scratch) / "tree"
            root = tree / submission.division / submission.submitter
            _write(submission, root)
            manifest.write(root)
            tree.rename(output)
    except OSError as error:
        raise InputError(
            f"cannot build the submission ({error.filename or output}): {error.strerror}",
            hint="choose a folder you can write to: --output FOLDER",
        ) from None


def _write(submission: Submission, root: Path) -> None:
    against = submission.against
    first = submission.results[0].main.run.record
    benchmark = benchmark_name(first.plan)
    system = texts.system(submission.system, submission.preview)
    write_atomic(root / "systems" / f"{submission.system_id}.json", texts.as_json(system))
    text = texts.readme(submission.results, submission.division, against)
    write_atomic(root / "README.md", text)
    src = root / "src" / benchmark
    write_atomic(src / "README.md", texts.source_readme(first, against))
    _write_source(first.environment.git, src / "mlperf-sut")
    for result in submission.results:
        folder = root / "results" / submission.system_id / benchmark / SCENARIOS[result.scenario]
        _write_result(submission, result, folder)


def _write_source(git: Git | None, folder: Path) -> None:
    if git is not None and (archive := source.archive(git.commit)) is not None:
        with tarfile.open(fileobj=archive) as files:
            files.extractall(folder, filter="data")


def _write_result(submission: Submission, result: Result, folder: Path) -> None:
    record, preview = result.main.run.record, submission.preview
    text = texts.scenario_readme(result, submission.division, submission.against)
    write_atomic(folder / "README.md", text)
    write_atomic(folder / "user.conf", texts.user_conf(record, preview))
    write_atomic(folder / "plan.json", result.main.run.run_dir.plan.read_bytes())
    measurements = texts.measurements(record.plan, preview)
    write_atomic(folder / "measurements.json", texts.as_json(measurements))
    if performance := result.parts.get(Mode.PERFORMANCE):
        _copy(performance, folder / "performance" / "run_1", SUMMARY, DETAIL)
    if accuracy := result.parts.get(Mode.ACCURACY):
        _write_accuracy(accuracy, folder / "accuracy", preview)
    for mode in (Mode.COMPLIANCE, Mode.TEST07):
        if tested := result.parts.get(mode):
            _write_compliance(tested, folder, preview)


def _write_accuracy(part: Part, folder: Path, preview: bool) -> None:
    """The whole accuracy log stays in the run directory; MLCommons may ask for it."""
    _copy(part, folder, SUMMARY, DETAIL)
    log = (part.folder / answers.FILE_NAME).read_bytes()
    write_atomic(folder / answers.FILE_NAME, texts.truncated(log))
    sha256 = part.phase.file_sha256[answers.FILE_NAME]
    text = texts.accuracy(part.phase.accuracy or {}, part.phase.num_scored, sha256, preview)
    write_atomic(folder / "accuracy.txt", text)


def _write_compliance(part: Part, result: Path, preview: bool) -> None:
    test = part.run.record.plan.compliance_test(part.phase.test.mode)
    folder = result / test
    log = (part.folder / answers.FILE_NAME).read_bytes()
    if test in TRUNCATED:
        log = texts.truncated(log)
        sha256 = part.phase.file_sha256[answers.FILE_NAME]
        write_atomic(folder / "accuracy" / "accuracy.txt", f"hash={sha256}\n")
    write_atomic(folder / "accuracy" / answers.FILE_NAME, log)
    _copy(part, folder / "performance" / "run_1", SUMMARY, DETAIL)
    for name in compliance_files.NAMES:
        if (part.folder / name).is_file():
            verified = (part.folder / name).read_text()
            write_atomic(folder / name, texts.verification(verified, preview))


def _copy(part: Part, folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(part.folder / name, folder / name)
