"""The runs of a comparison: what they are about, the trainers of the arms, and one run to its end."""
