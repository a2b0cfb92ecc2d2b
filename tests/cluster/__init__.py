"""A cluster on this machine: ``login``, ``jw2`` and ``jw3``, with real Slurm and real Apptainer.

``PYTHONPATH=tests python -m cluster ACTION``, as in ``make cluster``. ``run`` and ``shell`` bring
the cluster up first; ``prepare`` only makes the files that are kept in the cache.
"""
