"""Images of any size: their bands, sample types, orientation, and place on the ground."""
