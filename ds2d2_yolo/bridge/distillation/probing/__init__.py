"""What the probe of a teacher and a student measures, and the assignment that it repeats."""
