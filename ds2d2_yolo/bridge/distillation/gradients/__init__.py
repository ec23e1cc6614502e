"""Gradients that the task loss and the terms send into the student's neck, by level."""
