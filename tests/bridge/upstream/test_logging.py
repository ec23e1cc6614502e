"""What Ultralytics logs while it is to be quiet, and that it speaks again afterwards."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER
from ultralytics.utils.tqdm import TQDM

from ds2d2_yolo.bridge.upstream.logging import LineLog, logged_to, quiet, warnings_only


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


def test_a_file_takes_all_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stdout)
    LOGGER.addHandler(handler)
    file = tmp_path / "log.txt"
    file.write_text("earlier\n", encoding="utf-8")
    try:
        with logged_to(file):
            LOGGER.warning("logged")
            print("printed")
            print("on standard error", file=sys.stderr)
            bar = TQDM(range(3), disable=False)
            for _ in bar:
                bar.set_description("bar")
        LOGGER.warning("afterwards")
    finally:
        LOGGER.removeHandler(handler)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert {"earlier", "printed", "on standard error"} <= set(lines)
    assert "logged" in "".join(lines)
    bars = [line for line in lines if line.startswith("bar")]
    assert len(bars) == 1
    assert "3/3" in bars[0]
    assert "afterwards" not in "".join(lines)
    screen = capsys.readouterr()
    assert "afterwards" in screen.out
    assert "logged" not in screen.out + screen.err
    assert "printed" not in screen.out + screen.err


def test_an_unfinished_line_reaches_the_file(tmp_path: Path) -> None:
    with logged_to(tmp_path / "log.txt"):
        print("half of a bar", end="")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "half of a bar\n"


def test_an_error_ends_the_log(tmp_path: Path) -> None:
    before = sys.stdout, [getattr(handler, "stream", None) for handler in LOGGER.handlers]
    with pytest.raises(ZeroDivisionError), logged_to(tmp_path / "log.txt"):
        raise ZeroDivisionError
    assert before == (sys.stdout, [getattr(handler, "stream", None) for handler in LOGGER.handlers])


def test_a_closed_stream_and_a_handler_made_meanwhile_leave_no_stale_one(tmp_path: Path) -> None:
    closed = io.StringIO()
    closed.close()
    handlers = [logging.StreamHandler(closed)]
    LOGGER.addHandler(handlers[0])
    before = [getattr(handler, "stream", None) for handler in LOGGER.handlers]
    try:
        with logged_to(tmp_path / "log.txt"):
            handlers.append(logging.StreamHandler(sys.stdout))
            LOGGER.addHandler(handlers[1])
        after = [getattr(handler, "stream", None) for handler in LOGGER.handlers]
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
    assert after == [*before, sys.stdout]


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        (["a\nb\n"], ["a", "b"]),
        (["a", "b", "\n"], ["ab"]),
        (["\r1/3", "\r\x1b[K2/3", "\r\x1b[K3/3", "\n"], ["3/3"]),
        (["a\r\n", "\x1b[34m\x1b[1mblue\x1b[0m\n"], ["a", "blue"]),
        (["unfinished"], []),
    ],
)
def test_lines_are_those_that_a_terminal_shows(parts: list[str], lines: list[str]) -> None:
    file = io.StringIO()
    log = LineLog(file)
    assert log.writable()
    for part in parts:
        assert log.write(part) == len(part)
    log.flush()
    assert file.getvalue().splitlines() == lines
