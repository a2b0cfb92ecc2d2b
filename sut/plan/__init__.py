"""From a benchmark and a site to a plan: everything a run needs, resolved. Pure."""
