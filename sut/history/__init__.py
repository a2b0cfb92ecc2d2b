"""Many records: listed and compared."""
