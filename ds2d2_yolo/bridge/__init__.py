"""The bridge to Ultralytics: the only part of the package that knows its models, losses and trainers."""

import os
import sys

# Ultralytics sets OMP_NUM_THREADS to 1 when it is imported, unless the user set it (8.4.190). In this process and its
# children that would look like the user's choice. `utils.threads` decides on the number instead.
if "ultralytics" not in sys.modules and not os.environ.get("OMP_NUM_THREADS"):
    import ultralytics  # noqa: F401

    os.environ.pop("OMP_NUM_THREADS", None)
