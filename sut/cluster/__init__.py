"""Slurm and Apptainer: every command line of theirs, and the host side of a run."""
