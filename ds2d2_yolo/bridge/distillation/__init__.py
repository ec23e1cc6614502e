"""From a batch to the four terms and their gains."""
