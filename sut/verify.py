"""``python -m sut.verify RUN...``: whether runs are what their records say."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.command import Parser, a_path, command
from sut.errors import EXIT_INVALID, EXIT_VALID, InputError, quoted
from sut.launch.options import add, add_runs, find_runs, shared
from sut.machine import checkout
from sut.results import record, signature, verification
from sut.results.record import Record
from sut.results.verification import Verified
from sut.rundir import JOB, OLDER_JOB, RunDir
from sut.units import quantity

_KEYS = (b"ssh-", b"ecdsa-", b"sk-")  # begin a public key of SSH
# Written after a record, or about the folder. Older runs have slurm.
OF_EVERY_RUN = ("claims", JOB, OLDER_JOB, "notices.json")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is 0 if all is as recorded, 1 if not, 2 for bad input."""
    options = _options(argv)
    if options.signers is not None and not options.signers.is_file():
        raise InputError(
            f"cannot read {options.signers}: no such file",
            hint="give a file of lines 'NAME ssh-ed25519 KEY': docs/verify.md",
        )
    if options.signers is not None and _is_public_key(options.signers):
        raise InputError(
            f"{options.signers} is a public key, not a list of signers: its lines have no names",
            hint=f"make a list: (printf 'NAME '; cat {quoted(options.signers)}) >signers; then "
            "--signers signers",
        )
    results = [_verify(run_dir, options) for run_dir in find_runs(options.runs, options)]
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print("\n\n".join(map(_text, results)))
    return EXIT_INVALID if any(result["differences"] for result in results) else EXIT_VALID


def _is_public_key(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(64).startswith(_KEYS)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.verify",
        description="Check runs against their records: the hashes of all files, the model and the "
        "data, and the verdict, judged again.",
        epilog="exit codes: 0 as recorded, 1 not as recorded, 2 not a run",
        examples=("latest", "RUN --sign ~/.ssh/id_ed25519", "RUN --signers allowed_signers"),
        parents=[shared("site", "root")],
    )
    add_runs(parser, "runs", nargs="+")
    parser.add_argument(
        "--sign",
        type=a_path,
        metavar="KEY",
        help="sign the records that are as recorded, with this SSH key, into record.json.sig",
    )
    parser.add_argument(
        "--signers",
        type=a_path,
        metavar="FILE",
        help="require a signature by a key in this file, of ssh-keygen's allowed signers",
    )
    add(parser, "json")
    return parser.parse(argv)


def _verify(run_dir: RunDir, options: argparse.Namespace) -> dict[str, Any]:
    try:
        found = record.read(run_dir.root)
    except record.AlteredError as error:
        return _result(run_dir, "ALTERED", Verified([str(error)], [], []))
    checked = verification.verify(found, run_dir)
    if checked.differences and (note := _of_another_version(found)):
        checked.unchecked.append(note)
    signed = None
    try:
        if options.sign is not None and not checked.differences:
            signed = signature.sign(run_dir, options.sign)
        signer = _signer(run_dir, options, checked)
    except OSError as error:
        where = error.filename or run_dir
        raise InputError(f"cannot sign or check ({where}): {error.strerror}") from None
    return _result(run_dir, found.headline, checked, signer, signed)


def _signer(run_dir: RunDir, options: argparse.Namespace, checked: Verified) -> str | None:
    """Who signed the record: a name in the file of --signers. None without this file."""
    path, signers = run_dir.signature, options.signers
    if not path.is_file():
        if signers is not None:
            checked.differences.append(f"{path}: the record is not signed")
        return None
    if signers is None:
        if not signature.is_genuine(run_dir):
            checked.differences.append(f"{path}: not a signature of this record")
        elif options.sign is None:
            checked.unchecked.append("who signed the record: add --signers FILE")
        return None
    name = signature.signer(run_dir, signers)
    if name is None:
        checked.differences.append(f"{path}: not a signature of this record by a key in {signers}")
    return name


def _of_another_version(found: Record) -> str:
    git = found.environment.git
    here = checkout.commit()
    if git is None or git.commit == here:
        return ""
    return (
        f"the record was written by commit {git.commit}, not by this one ({here or 'unknown'}), "
        "whose rules may differ"
    )


def _result(
    run_dir: RunDir,
    headline: str,
    checked: Verified,
    signer: str | None = None,
    signed: Path | None = None,
) -> dict[str, Any]:
    return {
        "run": str(run_dir),
        "verified": not checked.differences,
        "headline": headline,
        "differences": checked.differences,
        "unchecked": checked.unchecked,
        "uncovered": checked.uncovered,
        "signed_by": signer,
        "signature_written": signed and str(signed),
    }


def _text(result: dict[str, Any]) -> str:
    if result["verified"]:
        by = f", signed by {result['signed_by']}" if result["signed_by"] else ""
        lines = [f"{result['run']}: as recorded: {result['headline']}{by}"]
    else:
        lines = [f"{result['run']}: NOT as recorded"]
        lines += [f"  - {line}" for line in result["differences"]]
    if written := result["signature_written"]:
        lines.append(f"  signed: {written}")
    lines += [f"  not checked: {line}" for line in result["unchecked"]]
    files = result["uncovered"]
    of_every_run = [each for each in files if each.partition("/")[0] in OF_EVERY_RUN]
    others = [each for each in files if each not in of_every_run]
    for listed, why in ((of_every_run, "; every run has them"), (others, "")):
        if listed:
            lines.append(f"  not covered by the record: {', '.join(_by_folder(listed))}{why}")
    return "\n".join(lines)


def _by_folder(files: Sequence[str]) -> list[str]:
    """``slurm/ (3 files)``, ``logs/replica-0.0.log``."""
    folders: dict[str, list[str]] = {}
    for name in files:
        folders.setdefault(name.partition("/")[0], []).append(name)
    return [
        f"{folder}/ ({quantity(len(names), 'files')})" if len(names) > 1 else names[0]
        for folder, names in folders.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
