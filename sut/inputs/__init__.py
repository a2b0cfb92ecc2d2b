"""Model, data set and cache: what a run reads."""
