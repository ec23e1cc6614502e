"""Data sets as Ultralytics reads them."""
