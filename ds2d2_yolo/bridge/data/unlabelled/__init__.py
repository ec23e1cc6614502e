"""Unlabelled training images: listed and checked, and turned into batches. Not part of the published method."""
