"""What is known about a run before its first epoch."""
