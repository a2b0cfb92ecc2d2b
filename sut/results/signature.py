"""A record's signature by an SSH key: made and checked by ``ssh-keygen -Y``."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sut.errors import InputError
from sut.rundir import RunDir, write_atomic

NAMESPACE = "mlperf-sut"


def sign(run_dir: RunDir, key: Path) -> Path:
    """Write ``record.json.sig``. ``key`` is a private key, or the public one of a key in the SSH
    agent. ssh-keygen asks for a passphrase. Raises InputError, OSError."""
    done = _ssh_keygen("sign", "-f", str(key), content=run_dir.record.read_bytes())
    if done.returncode != 0:
        raise InputError(
            f"cannot sign with {key}: {_last_line(done)}",
            hint="give a private SSH key, e.g. --sign ~/.ssh/id_ed25519",
        )
    write_atomic(run_dir.signature, done.stdout)
    return run_dir.signature


def signer(run_dir: RunDir, signers: Path) -> str | None:
    """Who signed the record, by the file ``signers`` in the format of ssh-keygen's allowed signers;
    None if nobody in it did. Raises InputError, OSError."""
    where = ("-s", str(run_dir.signature), "-f", str(signers))
    found = _ssh_keygen("find-principals", *where)
    for name in found.stdout.decode().splitlines() if found.returncode == 0 else ():
        content = run_dir.record.read_bytes()
        if _ssh_keygen("verify", "-I", name, *where, content=content).returncode == 0:
            return name
    return None


def is_genuine(run_dir: RunDir) -> bool:
    """Whether the signature is of this record, whoever made it. Raises InputError, OSError."""
    content = run_dir.record.read_bytes()
    done = _ssh_keygen("check-novalidate", "-s", str(run_dir.signature), content=content)
    return done.returncode == 0


def _ssh_keygen(
    action: str, *arguments: str, content: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", "-Y", action, *arguments]
    if action != "find-principals":
        command += ["-n", NAMESPACE]
    try:
        return subprocess.run(command, input=content, capture_output=True)
    except FileNotFoundError:
        raise InputError(
            "cannot check or make a signature: ssh-keygen not found",
            hint="install OpenSSH's client (Debian: openssh-client)",
        ) from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ssh-keygen: exit code {done.returncode}"
