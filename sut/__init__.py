"""MLPerf Inference for LLMs on Slurm: the official LoadGen over batched vLLM engines."""
