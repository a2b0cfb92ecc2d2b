"""Submissions: from the records of runs to the tree of files that MLCommons reviews."""
