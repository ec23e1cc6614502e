"""Trained models at work: prediction, export, measurement."""
