"""Shared builders of the tests: models, batches, data sets and settings."""
