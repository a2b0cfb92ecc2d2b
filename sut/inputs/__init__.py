"""The inputs of a run: model, data set and cache."""
