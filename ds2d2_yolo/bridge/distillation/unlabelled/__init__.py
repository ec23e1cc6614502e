"""Images without labels in the losses: the rows of the labelled ones, and the teacher's detections as boxes."""
