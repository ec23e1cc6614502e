"""Helpers that know neither torch nor Ultralytics."""
