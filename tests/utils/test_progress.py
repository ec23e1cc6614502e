"""Progress of long tasks, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from ds2d2_yolo.utils.progress import Task, duration, tracked


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def work(stream: io.StringIO, title: str = "[1/2] drawing") -> Task:
    """Run a task of four units, with a note."""
    with tracked(title, stream=stream) as task:
        task.total = 4
        task.advance()
        task.note("[note] of the task")
        task.reach(3)
    return task


def test_a_file_gets_plain_lines() -> None:
    stream = io.StringIO()
    task = work(stream)
    assert stream.getvalue().splitlines() == ["[1/2] drawing", "[note] of the task", "[1/2] drawing: 0 s"]
    assert (task.completed, task.total) == (4, 4)


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    work(stream)
    text = stream.getvalue()
    assert "[1/2] drawing" in text  # not taken for markup
    assert "[note] of the task" in text
    assert "4/4" in text


def fail(task: Task) -> None:
    """Finish a unit, then fail."""
    task.advance()
    raise ZeroDivisionError


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_bar_ends_where_the_work_fails(kind: type[io.StringIO]) -> None:
    stream = kind()
    with pytest.raises(ZeroDivisionError), tracked("work", 4, stream) as task:
        fail(task)
    assert task.completed == 1
    assert "4/4" not in stream.getvalue()


def test_the_total_may_stay_unknown() -> None:
    stream = Terminal()
    with tracked("work", stream=stream) as task:
        assert task.total is None
    assert (task.completed, task.total) == (1, 1)


def test_standard_output_is_that_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked("work", 1):
        pass
    assert capsys.readouterr().out.splitlines() == ["work", "work: 0 s"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89.4, "89 s"), (90, "1.5 min"), (3600, "60.0 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
