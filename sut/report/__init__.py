"""A record as text, page and plots."""
