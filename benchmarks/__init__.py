"""What the dispatcher costs, beside LoadGen alone and the usual Python SUT: ``make bench``."""
