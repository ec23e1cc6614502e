"""Images of any size: their bands, sample types, place on the ground, and tiles read from disk."""
