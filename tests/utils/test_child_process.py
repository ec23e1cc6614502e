"""Child processes: request, response, errors and environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds2d2_yolo.utils.child_process import ChildError, child_environment, reported_error, run_child
from ds2d2_yolo.utils.threads import SHORT_SPIN

REPOSITORY = Path(__file__).resolve().parents[2]
CHILD = """
import os, signal, sys
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.child_process import serve

def work(request):
    print("some progress")
    if request["do"] == "refuse":
        raise BadUseError("model=nowhere.pt does not exist\\nsecond line")
    if request["do"] == "fail":
        raise ValueError("no such band\\nsecond line")
    if request["do"] == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if request["do"] == "exit":
        print("last words", file=sys.stderr)
        os._exit(3)
    return {"sum": sum(request["numbers"]), "spin": os.environ.get("GOMP_SPINCOUNT"), "extra": os.environ.get("EXTRA")}

if __name__ == "__main__":
    sys.exit(serve(work, sys.argv[1:]))
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of children that find the module `child_module`."""
    (tmp_path / "child_module.py").write_text(CHILD, encoding="utf-8")
    for name in (*SHORT_SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    return child_environment({"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]), "EXTRA": "yes"})


def test_the_response_comes_back(environment: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    response = run_child("child_module", {"do": "add", "numbers": [1, 2]}, environment)
    assert response == {"sum": 3, "spin": SHORT_SPIN["GOMP_SPINCOUNT"], "extra": "yes"}
    assert capfd.readouterr() == ("", "")


def test_output_is_shown_on_request(environment: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    run_child("child_module", {"do": "add", "numbers": []}, environment, show_output=True)
    assert capfd.readouterr().out == "some progress\n"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("refuse", "model=nowhere.pt does not exist"),
        ("fail", "ValueError: no such band"),
        ("crash", "its process ended with status -9"),
        ("exit", "its process ended with status 3: last words"),
    ],
)
def test_a_failure_is_one_line(do: str, message: str, environment: dict[str, str]) -> None:
    with pytest.raises(ChildError) as caught:
        run_child("child_module", {"do": do}, environment)
    assert str(caught.value) == message


def test_a_module_that_is_not_there_is_a_failure(environment: dict[str, str]) -> None:
    with pytest.raises(ChildError, match=r"status 1: .*No module named no_such_module"):
        run_child("no_such_module", {}, environment)


def test_only_a_line_of_serve_is_a_reported_error() -> None:
    assert reported_error("Traceback ...\nds2d2-yolo: ValueError: no\n") == "ValueError: no"
    assert reported_error("ds2d2-yolo: no\nsomething later") is None
    assert reported_error("") is None


def test_a_chosen_wait_policy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHORT_SPIN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not SHORT_SPIN.keys() & child_environment().keys()
    assert child_environment({"C": "d"}, {"A": "b"}) == {"A": "b", "C": "d", **SHORT_SPIN}
