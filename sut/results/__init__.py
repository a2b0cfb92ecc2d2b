"""From LoadGen's logs to a verdict and a record."""
