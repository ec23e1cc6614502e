"""What the folder of a comparison keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.compare.results import RunResult
from ds2d2_yolo.compare.state import CompareState
from ds2d2_yolo.errors import BadUseError

FINGERPRINT = {"teacher": "aaa", "data": "bbb", "settings": {"epochs": 2, "lr0": 0.1}, "versions": {"torch": "2.4"}}
ARMS: dict[str, Any] = {"plain": {"kind": "plain", "settings": {}}, "ours": {"kind": "ds2d2", "settings": {"imhi": 0}}}


def begun(folder: Path, arms: dict[str, Any] = ARMS) -> CompareState:
    """A comparison whose arms have begun."""
    state = CompareState(folder, FINGERPRINT, arms)
    state.begin()
    for arm in arms:
        (folder / arm).mkdir(exist_ok=True)
    return state


def row(state: CompareState, arm: str, seed: int) -> RunResult:
    """A raw result of a run."""
    values = ("d", "t", "s", 96, 2, "last", "all", "all", 0.5, 0.4, 8, 32)
    return RunResult(arm, seed, *values, settings_hash=state.hash_of(arm))


def test_finished_runs_are_known_again(tmp_path: Path) -> None:
    state = begun(tmp_path / "c")
    assert not state.done("plain", 0)
    state.add([row(state, "plain", 0)])
    reopened = CompareState(tmp_path / "c", FINGERPRINT, ARMS)
    assert reopened.done("plain", 0)
    assert not reopened.done("plain", 1)
    assert not reopened.done("ours", 0)


def test_arms_may_be_added(tmp_path: Path) -> None:
    begun(tmp_path / "c", {"plain": ARMS["plain"]})
    begun(tmp_path / "c", {"ours": ARMS["ours"]})
    assert set(CompareState(tmp_path / "c", FINGERPRINT, {}).arms) == {"plain", "ours"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": "ccc"}, "teacher was aaa, is ccc"),
        ({"settings": {"epochs": 3, "lr0": 0.1}}, r"\(epochs was 2, is 3\)"),
        ({"settings": {"epochs": 2}}, "lr0 was 0.1, is None"),
        ({"versions": {"torch": "2.5"}}, "torch was 2.4, is 2.5"),
    ],
)
def test_another_comparison_is_refused_with_what_differs(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    begun(tmp_path / "c")
    with pytest.raises(BadUseError, match=message) as e:
        CompareState(tmp_path / "c", {**FINGERPRINT, **change}, ARMS)
    assert "\n" not in str(e.value)


def test_an_arm_with_other_settings_is_refused(tmp_path: Path) -> None:
    begun(tmp_path / "c")
    with pytest.raises(BadUseError, match="arm ours: imhi was 0, is 1"):
        CompareState(tmp_path / "c", FINGERPRINT, {"ours": {"kind": "ds2d2", "settings": {"imhi": 1}}})


def test_a_setting_that_is_new_since_has_its_default_in_older_runs(tmp_path: Path) -> None:
    before = begun(tmp_path / "c")
    before.add([row(before, "ours", 0), row(before, "plain", 0)])
    newer = {**ARMS, "ours": {"kind": "ds2d2", "settings": {"imhi": 0, "new": 1.0}}}
    defaults = {"imhi": None, "new": 1.0}
    state = CompareState(tmp_path / "c", FINGERPRINT, newer, defaults)
    assert state.done("ours", 0)
    assert state.hash_of("ours") == before.hash_of("ours"), "rows of both versions belong together"
    state.begin()
    newer["ours"]["settings"]["new"] = 2.0
    with pytest.raises(BadUseError, match=r"arm ours: new was 1\.0, is 2\.0"):
        CompareState(tmp_path / "c", FINGERPRINT, newer, defaults)


def test_what_has_not_begun_may_change(tmp_path: Path) -> None:
    CompareState(tmp_path / "c", FINGERPRINT, ARMS).begin()
    CompareState(tmp_path / "c", {**FINGERPRINT, "teacher": "ccc"}, ARMS)
    (tmp_path / "c" / "plain").mkdir()
    CompareState(tmp_path / "c", FINGERPRINT, {"ours": {"kind": "ds2d2", "settings": {"imhi": 1}}})
    with pytest.raises(BadUseError, match="teacher was"):
        CompareState(tmp_path / "c", {**FINGERPRINT, "teacher": "ccc"}, ARMS)


def test_results_without_the_rest_of_the_folder_go_on(tmp_path: Path) -> None:
    state = begun(tmp_path / "c")
    state.add([row(state, "plain", 0)])
    (tmp_path / "c" / "compare.json").unlink()
    assert CompareState(tmp_path / "c", FINGERPRINT, ARMS).done("plain", 0)
    with pytest.raises(BadUseError, match="runs of arm plain with other settings"):
        CompareState(tmp_path / "c", {**FINGERPRINT, "data": "x"}, ARMS)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    with pytest.raises(BadUseError, match="holds no comparison"):
        CompareState(tmp_path / "c", FINGERPRINT, ARMS)
    (tmp_path / "d").write_text("a file")
    with pytest.raises(BadUseError, match="holds no comparison"):
        CompareState(tmp_path / "d", FINGERPRINT, ARMS)


def test_arms_stay_in_their_order(tmp_path: Path) -> None:
    """Their rows do, whatever order a later command names them in, and those added come behind."""
    begun(tmp_path / "c")
    later = {"first": ARMS["ours"], **dict(reversed(ARMS.items()))}
    assert list(CompareState(tmp_path / "c", FINGERPRINT, later).arms) == ["plain", "ours", "first"]


@pytest.mark.parametrize("text", ["{", "[]", '{"fingerprint": {}}', '{"fingerprint": {}, "arms": {"a": 1}}'])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    begun(tmp_path / "c")
    (tmp_path / "c" / "compare.json").write_text(text)
    with pytest.raises(BadUseError, match=r"compare\.json cannot be read"):
        CompareState(tmp_path / "c", FINGERPRINT, ARMS)
