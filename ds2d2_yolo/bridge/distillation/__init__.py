"""From a batch to the terms and their gains."""
