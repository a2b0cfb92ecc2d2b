"""Environment variables: those that an engine gets from the caller, and those of them on record.

An engine gets what its libraries may need, and nothing else of the caller's shell: neither its
secrets nor what nobody would look for after a surprising result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Those that can change what an engine computes or how fast. A run's record has their values.
_DECIDING = re.compile(
    "(ATEN|CUBLAS|CUDA|CUDNN|DNNL|FI|FLASHINFER|GLOO|GOMP|HF|IBV|KMP|LD|MALLOC|MKL|NCCL|NUMBA|"
    "NVIDIA|NVSHMEM|OMP|ONEDNN|OPENBLAS|PYTHON|PYTORCH|RDMAV|SAFETENSORS|TORCH|TORCHINDUCTOR|"
    "TRANSFORMERS|TRITON|UCX|VLLM)_.*|CC|CPATH|CXX|GLIBC_TUNABLES|LIBRARY_PATH|PYTHON[A-Z]+"
)
# Those that a process needs.
_NEEDED = re.compile(
    "HOME|LANG|LANGUAGE|LC_.*|LOGNAME|PATH|SHELL|SLURM_.*|TMPDIR|TZ|USER|XDG_CACHE_HOME"
)
_SECRET = re.compile(".*(API_?KEY|CREDENTIAL|PASSW|SECRET|TOKEN$).*")


def for_engine(caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables that an engine gets."""
    needed = {name: value for name, value in caller.items() if _NEEDED.fullmatch(name)}
    return needed | deciding(caller)


def deciding(caller: Mapping[str, str]) -> dict[str, str]:
    """Those of them that can change a result, sorted."""
    return {
        name: value
        for name, value in sorted(caller.items())
        if _DECIDING.fullmatch(name) and not _SECRET.fullmatch(name)
    }
