"""From the settings of a command to a run that can begin: checks, report, amplifier, provenance."""
