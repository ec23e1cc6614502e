"""Ultralytics' internals and what they force, without any distillation."""
