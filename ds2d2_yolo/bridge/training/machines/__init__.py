"""Agreement of the machines of one run, before and between their trainings."""
