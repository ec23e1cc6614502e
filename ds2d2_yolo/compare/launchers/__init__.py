"""Where the runs of a comparison are started: on this machine, or as jobs of a cluster."""
