"""Token ids by vLLM's own ``LLM.generate``, one prompt at a time: what ours must equal.

Usage: python vllm_generate.py PLAN MODEL NUM_SAMPLES OUT  (writes a JSON list of lists)

A program of its own, as it needs the cores that an engine of ours would hold.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sut import dataset
from sut.plan import read_plan


def main() -> None:
    plan = read_plan(Path(sys.argv[1]))
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
    answers = []
    for prompt in samples.prompts[:num_samples]:
        (output,) = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)
        answers.append(list(output.outputs[0].token_ids))
    Path(sys.argv[4]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
