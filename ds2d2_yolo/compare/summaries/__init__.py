"""From the rows of a comparison to its statistics, tables and picture."""
