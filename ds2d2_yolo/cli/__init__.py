"""The command line, in Ultralytics' habits: `ds2d2-yolo MODE key=value ...`."""

from ds2d2_yolo.cli.command import entrypoint, main
from ds2d2_yolo.cli.parsing import parse

__all__ = ["entrypoint", "main", "parse"]
