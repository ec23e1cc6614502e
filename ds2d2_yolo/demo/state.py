"""Finished steps of a demonstration, in a small file that is replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_atomically

STATE_FILE = "state.json"
STARTED = "started"

# step -> the steps that it depends on: if one of them runs again, the step does too
DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "teacher": (),
    "distilled": ("teacher",),
    "plain": (),
    "validation": ("teacher", "distilled", "plain"),
    "onnx": ("distilled",),
    "picture": ("teacher", "distilled", "plain"),
}


class DemoState:
    """The finished steps of a demonstration, stored in its folder.

    Args:
        folder (Path): Folder of the demonstration; it is made if it is missing.
        fingerprint (Mapping[str, Any]): Everything that the results depend on.

    Raises:
        BadUseError: If the folder holds something else, or a demonstration with another fingerprint.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))
        self.steps: dict[str, Any] = {}
        if (folder / STATE_FILE).is_file():
            self.steps = self._read()
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadUseError(f"{folder} holds no demo: give the demo a folder of its own with name=")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._write()

    def _read(self) -> dict[str, Any]:
        """Return the steps of the folder's demonstration; refuse one with another fingerprint."""
        advice = "give this one another folder with name=, or delete that one"
        try:
            stored = json.loads((self.folder / STATE_FILE).read_text(encoding="utf-8"))
            steps, before = {**stored["steps"]}, {**stored["fingerprint"]}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadUseError(f"{self.folder / STATE_FILE} cannot be read: {advice}") from e
        differing = sorted(k for k in {*before, *self.fingerprint} if before.get(k) != self.fingerprint.get(k))
        if differing:
            changes = (f"{k} was {_short(before.get(k))}, is {_short(self.fingerprint.get(k))}" for k in differing)
            raise BadUseError(f"{self.folder} holds a demo with other settings ({'; '.join(changes)}): {advice}")
        return steps

    def done(self, step: str, files: Iterable[Path] = ()) -> bool:
        """Return whether a step is finished and its files exist."""
        return self.steps.get(step, STARTED) != STARTED and all(f.is_file() for f in files)

    def started(self, step: str) -> bool:
        """Return whether a step was started and not finished."""
        return self.steps.get(step) == STARTED

    def start(self, step: str) -> None:
        """Record that a step starts; later steps that depend on it are no longer finished."""
        self.steps[step] = STARTED
        for later in _dependents(step):
            self.steps.pop(later, None)
        self._write()

    def finish(self, step: str, result: Any = True) -> None:
        """Record that a step is finished, with its result."""
        self.steps[step] = result
        self._write()

    def _write(self) -> None:
        """Replace the file atomically."""
        write_atomically(
            self.folder / STATE_FILE, json.dumps({"fingerprint": self.fingerprint, "steps": self.steps}, indent=1)
        )


def _dependents(step: str) -> list[str]:
    """Return the steps that depend on a step, directly or through others."""
    direct = [later for later, sources in DEPENDENCIES.items() if step in sources]
    return [*direct, *(x for later in direct for x in _dependents(later))]


def _short(value: Any) -> str:
    """Return a value in at most 12 characters; hashes are long."""
    return str(value)[:12]
