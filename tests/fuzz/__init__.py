"""Fuzzing of what reads files, the output of commands and the network: see docs/testing.md."""
