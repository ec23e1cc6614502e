"""Trainers and the preparation of a run."""
