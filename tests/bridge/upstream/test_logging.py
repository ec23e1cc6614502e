"""What Ultralytics logs while it is to be quiet, and that it speaks again afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest
from ultralytics.utils import LOGGER

from ds2d2_yolo.bridge.upstream.logging import quiet, warnings_only


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages that Ultralytics' logger lets through."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(LOGGER, "handlers", [handler])
    monkeypatch.setattr(LOGGER, "level", logging.INFO)
    return messages


def log_all() -> None:
    LOGGER.info("info")
    LOGGER.warning("warning")
    LOGGER.error("error")


def test_levels_below_the_given_one_are_dropped(logged: list[str]) -> None:
    with quiet():
        log_all()
    assert logged == ["warning", "error"]
    with quiet(logging.CRITICAL):
        log_all()
    assert logged == ["warning", "error"]
    log_all()
    assert logged[2:] == ["info", "warning", "error"]


def test_only_warnings_are_logged_and_pythons_are_dropped(logged: list[str]) -> None:
    with warnings.catch_warnings(record=True) as caught, warnings_only():
        log_all()
        warnings.warn("of the tracer", stacklevel=1)
    assert logged == ["warning"]
    assert not caught
    with warnings_only(verbose=True):
        log_all()
    assert logged[1:] == ["info", "warning", "error"]
