"""The dispatcher's cost beside LoadGen alone and vLLM's AsyncLLM: ``make bench``."""
