"""Progress of long tasks, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re

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


def test_a_bar_ends_where_the_work_fails() -> None:
    for stream in (Terminal(), io.StringIO()):
        with pytest.raises(ZeroDivisionError):
            fail(stream)
        assert "4/4" not in stream.getvalue()


def fail(stream: io.StringIO) -> None:
    """Fail after the first of four units."""
    with tracked("work", 4, stream) as task:
        task.advance()
        assert task.completed == 1
        raise ZeroDivisionError


def test_a_bar_ends_where_the_work_ends_without_all_units() -> None:
    stream = Terminal()
    with tracked("work", 4, stream, fill=False) as task:
        task.advance()
    assert (task.completed, task.total) == (1, 4)
    assert "1/4" in stream.getvalue()


def test_nothing_is_shown_on_request() -> None:
    stream = Terminal()
    with tracked("work", 4, stream, shown=False) as task:
        task.show_step("first")
        task.advance()
        task.note("[note]")
    assert stream.getvalue() == ""
    assert task.completed == 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `tracked` sees, as the only element."""
    now = [1000.0]
    monkeypatch.setattr("ds2d2_yolo.utils.progress.time.monotonic", lambda: now[0])
    return now


def test_the_remaining_time_follows_from_the_units_of_this_task(clock: list[float]) -> None:
    with tracked("work", 10, io.StringIO()) as task:
        task.skip(6)
        assert task.remaining() is None
        clock[0] += 30
        task.advance()
        assert task.remaining() == 90  # three units of 30 s
        clock[0] += 20
        assert task.remaining() == 70
        clock[0] += 200
        assert task.remaining() == 0
        task.total = None
        assert task.remaining() is None


def test_a_file_gets_a_line_a_minute_and_a_tenth_at_most(clock: list[float]) -> None:
    stream = io.StringIO()
    with tracked("work", 100, stream) as task:
        task.skip(50)
        for seconds, units in ((59, 20), (1, 1), (61, 1), (600, 8), (60, 10), (60, 10)):
            clock[0] += seconds
            task.advance(units)
    assert stream.getvalue().splitlines() == [
        "work",
        "work: 71 of 100, 83 s left",
        "work: 90 of 100, 3.3 min left",  # 40 units in 781 s
        "work: 14.0 min",
    ]


def test_a_terminal_shows_step_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "remaining", lambda _: 150.0)
    stream = Terminal()
    with tracked("work", 4, stream) as task:
        task.show_step("[first]")
        task.advance()
        task._bars.refresh()  # type: ignore[union-attr]
        assert "2.5 min left, [first]" in stream.getvalue()
    assert "[first]" not in stream.getvalue().rpartition("work")[2], "the step is gone at the end"


def test_a_narrow_terminal_cuts_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(Task, "remaining", lambda _: 150.0)
    stream = Terminal()
    with tracked("work", 4, stream) as task:
        task.show_step("step " * 20)
        task.advance()
        task._bars.refresh()  # type: ignore[union-attr]
        line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue().rpartition("work")[2])
    assert "1/4" in line
    assert "2.5 mi" in line
    assert "\n" not in line


def test_the_total_may_stay_unknown() -> None:
    stream = Terminal()
    with tracked("work", stream=stream) as task:
        assert task.total is None
    assert (task.completed, task.total) == (1, 1)


def test_standard_output_is_that_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked("work", 1):
        pass
    assert capsys.readouterr().out.splitlines() == ["work", "work: 0 s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89.4, "89 s"), (90, "1.5 min"), (3600, "60.0 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
