"""The bridge to Ultralytics: the only part of the package that knows its models, losses and trainers."""
