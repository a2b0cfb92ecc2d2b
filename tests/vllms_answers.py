"""Reference token ids by vLLM's own ``LLM.generate``, one prompt at a time.

Generating them takes minutes, so they are kept in the user's cache folder. The file's name is the
hash of its inputs: this file, the packages, the CPU's instruction set, model and prompts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import msgspec
from cli import environment

from sut.inputs import dataset, model
from sut.inputs.cache import cache_dir
from sut.plan.plan import Plan, load_plan
from sut.rundir import write_atomic
from sut.serving.process import Address, Launch
from sut.serving.process import environment as engine_environment

TIMEOUT_S = 400.0
LAUNCH = Launch(replica=0, part=0, handshake=Address("127.0.0.1", 0), host="127.0.0.1")


def answers(plan: Plan, model_path: Path, num_samples: int, folder: Path) -> list[list[int]]:
    """The answers to a plan's first samples; ``folder`` is for temporary files."""
    (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    prompts = dataset.load(plan, model_path).prompts[:num_samples]
    kept = cache_dir() / "vllms-answers" / f"{_key(plan, model_path, prompts)}.json"
    if not kept.is_file():
        # In its own process, because it needs the cores that our engine would use.
        arguments = [folder / "plan.json", model_path, num_samples, folder / "answers.json"]
        run = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env=environment(**engine_environment(plan, LAUNCH)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, printed = run.communicate(timeout=TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)  # with the processes that vLLM started
        assert run.returncode == 0, printed[-3000:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, (folder / "answers.json").read_bytes())
    return msgspec.json.decode(kept.read_bytes(), type=list[list[int]])


def _key(plan: Plan, model_path: Path, prompts: list[list[int]]) -> str:
    flags = re.search(r"^flags.*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    made_of = [
        Path(__file__).read_text(),
        sorted(f"{package.name} {package.version}" for package in distributions()),
        flags and flags[0],
        sorted(os.sched_getaffinity(0)),
        engine_environment(plan, LAUNCH),
        model.model_hash(model_path),
        msgspec.to_builtins([plan.generation, plan.engine]),
        prompts,
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def main() -> None:
    """``python vllms_answers.py PLAN MODEL NUM_SAMPLES OUT`` writes a JSON list of lists."""
    plan = load_plan(Path(sys.argv[1]))
    model_path, num_samples = Path(sys.argv[2]), int(sys.argv[3])
    samples = dataset.load(plan, model_path)

    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(model_path),
        dtype=plan.engine.dtype,
        max_model_len=plan.engine.max_model_len,
        max_num_seqs=plan.engine.max_num_seqs,
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    params = SamplingParams(
        temperature=0, min_tokens=plan.generation.min_tokens, max_tokens=plan.generation.max_tokens
    )
    made = []
    for prompt in samples.prompts[:num_samples]:
        (output,) = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)
        made.append(list(output.outputs[0].token_ids))
    Path(sys.argv[4]).write_text(json.dumps(made))


if __name__ == "__main__":
    main()
