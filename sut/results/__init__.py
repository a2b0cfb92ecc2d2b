"""Results: LoadGen's logs, the verdict on them, accuracy, the record and the report."""
