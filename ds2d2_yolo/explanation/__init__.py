"""Sheets that show the method at work on a few images: their arrays, their drawing, and the page that holds them.

`bridge.inference.explain` fills the arrays.
"""
