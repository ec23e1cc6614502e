"""The report of a run before its first epoch: facts and text."""
