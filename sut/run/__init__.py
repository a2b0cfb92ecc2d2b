"""One run, measured."""
