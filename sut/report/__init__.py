"""A record as text, HTML page and plots."""
