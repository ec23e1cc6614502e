"""A fault of the machine is said plainly, with what helps, and not as a Python error."""

from __future__ import annotations

import errno
import os

import pytest

from ds2d2_yolo.cli import main
from ds2d2_yolo.cli.system_errors import system_error_message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/last.pt"), "the disk is full: make room"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/a/b"), "/a/b cannot be opened or written: read-only file"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b cannot be opened or written: permission"),
        (MemoryError(), "lower batch= or imgsz="),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory: you"), "lower"),
        (FileNotFoundError("Image Not Found /a/3.png"), "(Image Not Found /a/3.png): put it back"),
        (
            FileNotFoundError(
                "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most recent call last)\n"
                "FileNotFoundError: Image Not Found /a/3.png"
            ),
            "(Image Not Found /a/3.png)",
        ),
    ],
)
def test_what_is_said(error: Exception, message: str) -> None:
    assert message in str(system_error_message(error))


def test_other_errors_are_left_alone() -> None:
    assert system_error_message(ValueError("shapes differ")) is None
    assert system_error_message(RuntimeError("size mismatch")) is None


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["train", "data=d.yaml"], "goes on with 'resume' behind it, or without if no epoch was saved yet"),
        (["train", "resume"], "the same command goes on"),
        (["amplify", "data=d.yaml"], "the same command goes on"),
    ],
)
def test_the_command_says_what_to_do(
    words: list[str], end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ds2d2_yolo.cli.dispatch.load", fail)
    assert main(words) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("ds2d2-yolo: the disk is full: make room; what was saved is whole, then ")
    assert err.endswith(end)
