"""Errors of other packages become one line."""

from __future__ import annotations

import pytest

from ds2d2_yolo.bridge.upstream.messages import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n one line \nof several"), "one line"),
        (KeyError(), "KeyError"),
        (ValueError("  \n"), "ValueError"),
        (TypeError("ERROR ❌️ model='x.txt' is no format. Ultralytics supports: ..."), "model='x.txt' is no format"),
    ],
)
def test_an_error_is_its_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line
