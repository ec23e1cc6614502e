"""Ultralytics' reading of a data set without its repair of images on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ultralytics.data import utils as data_utils


@contextmanager
def images_read_only() -> Iterator[None]:
    """Leave the user's images unchanged while the context lasts.

    Ultralytics (8.4.190) re-encodes every JPEG that does not end with its end marker, whenever it reads a data set.
    There is no setting for it: the function that swaps the file in is a module value, which this replaces and restores.
    The image is still decoded and encoded, so that a broken one is still refused.

    Yields:
        (None): No value.
    """
    replace_image = data_utils._replace_image

    def encode_only(_: str, write: Callable[[Any], None]) -> None:
        write(io.BytesIO())

    data_utils._replace_image = encode_only
    try:
        yield
    finally:
        data_utils._replace_image = replace_image
