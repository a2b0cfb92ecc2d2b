"""From benchmark and site to a plan: everything a run needs, resolved. Pure."""
