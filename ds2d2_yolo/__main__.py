"""`python -m ds2d2_yolo` is the command line."""

from ds2d2_yolo.cli import entrypoint

if __name__ == "__main__":
    entrypoint()
