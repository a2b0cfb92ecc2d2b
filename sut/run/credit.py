"""How many samples a replica may hold."""


def credit(max_num_seqs: int) -> int:
    """The most samples in flight on a replica: what it can run and a quarter more. A freed place is
    then filled in the same step, and a slow replica does not collect samples."""
    return max_num_seqs + max(1, max_num_seqs // 4)
