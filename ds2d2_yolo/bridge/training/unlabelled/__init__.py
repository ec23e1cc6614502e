"""Training with unlabelled images beside the labelled ones. Not part of the published method."""
