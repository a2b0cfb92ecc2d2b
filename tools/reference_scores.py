"""Score the embedded benchmark with transformers: the reference of its accuracy gates.

Usage: python tools/reference_scores.py  (takes minutes; writes configs/reference/BENCHMARK.json)

Model folder, prompts, generation settings and scoring are those of a run, but the model runs in
float32 in transformers, one article at a time: no vLLM, no dispatcher, no LoadGen. Copy the scores
into the benchmark's ``accuracy:``; the gates are 0.99 of ROUGE and 0.9 to 1.1 of gen_len.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from sut.inputs import dataset, model, wheels
from sut.plan import config
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode
from sut.plan.resolve import resolve
from sut.results import accuracy, rouge

BENCHMARK = "smollm2-135m-news"
REFERENCE = Path(__file__).parent.parent / "configs" / "reference" / f"{BENCHMARK}.json"
PACKAGES = ("transformers", "torch", "rouge-score", "nltk")


def main() -> None:
    benchmark, site = config.load(BENCHMARK, "local")
    plan = resolve(
        benchmark,
        site,
        scenario=Scenario.OFFLINE,
        mode=Mode.ACCURACY,
        preset=Preset.OFFICIAL,
        usable_cpus=[0],
    )
    path = model.locate(plan.model)
    samples = dataset.load(plan, path)
    answers = generate(
        path, samples.prompts, plan.generation.min_tokens, plan.generation.max_tokens
    )
    wheels.use_nltk_data()
    result = {
        "scores": rouge.score(accuracy.decode(answers, path), samples.references),
        "num_samples": len(answers),
        "model_sha256": model.model_hash(path),
        "data_sha256": samples.sha256,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(json.dumps(result, indent=2) + "\n")
    print(REFERENCE.read_text())


def generate(path: Path, prompts: list[list[int]], least: int, most: int) -> list[list[int]]:
    """Greedy token ids for each prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    answers = []
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = reference.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=least,
                max_new_tokens=most,
            )
        answers.append(output[0, len(prompt) :].tolist())
        if number % 50 == 0:
            print(f"{number} of {len(prompts)}", flush=True)
    return answers


if __name__ == "__main__":
    main()
