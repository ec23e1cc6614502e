"""Helpers without torch and Ultralytics."""
