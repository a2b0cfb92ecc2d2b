"""The dispatcher's cost compared with LoadGen alone and a typical Python SUT: ``make bench``."""
