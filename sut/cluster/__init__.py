"""Slurm and Apptainer: every command line of theirs is written here."""
