"""Engine processes on the nodes of a run, and the connections to them."""
