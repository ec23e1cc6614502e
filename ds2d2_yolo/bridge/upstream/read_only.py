"""Ultralytics' reading of a data set without its repair of images on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ultralytics.data import utils as data_utils

REPAIRED = "corrupt JPEG restored and saved"  # Ultralytics' message (8.4.190)
WOULD_REPAIR = "corrupt JPEG, which a training restores and saves"


@contextmanager
def images_read_only() -> Iterator[None]:
    """Leave the user's images unchanged while the context lasts.

    Ultralytics (8.4.190) re-encodes every JPEG that does not end with its end marker, whenever it reads a data set.
    There is no setting for it: the function that swaps the file in is a module value, which this replaces and restores.
    The image is still decoded and encoded, so that a broken one is still refused.

    Yields:
        (None): While it lasts, the message says that a training would repair the image.
    """
    replace_image, check_image = data_utils._replace_image, data_utils.check_image

    def encode_only(_: str, write: Callable[[Any], None]) -> None:
        write(io.BytesIO())

    def check_only(im_file: str) -> tuple[str, tuple[int, int]]:
        message, shape = check_image(im_file)
        return message.replace(REPAIRED, WOULD_REPAIR), shape

    data_utils._replace_image, data_utils.check_image = encode_only, check_only
    try:
        yield
    finally:
        data_utils._replace_image, data_utils.check_image = replace_image, check_image
