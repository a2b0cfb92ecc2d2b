"""From a request to a run directory and a submitted job."""
