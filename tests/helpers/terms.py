"""The terms of a run with the default settings; a term that is off by default is no part of them."""

from __future__ import annotations

from ds2d2_yolo.config.settings import Settings

ACTIVE = Settings().active
