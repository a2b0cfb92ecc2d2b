"""A cluster on this machine: ``login``, ``jw2`` and ``jw3``, with real Slurm and real Apptainer.

``PYTHONPATH=tests python -m cluster ACTION``, as ``make cluster`` does: ``up`` and ``down``;
``run`` and ``shell`` bring it up first; ``prepare`` makes only what is kept in the cache.
"""
