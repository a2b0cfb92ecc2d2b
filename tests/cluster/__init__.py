"""A cluster on this machine: ``login``, ``jw2`` and ``jw3``, with real Slurm and real Apptainer.

``PYTHONPATH=tests python -m cluster up | down | run COMMAND | shell``; ``make cluster`` does that.
"""
