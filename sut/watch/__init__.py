"""A run while it is pending or running."""
