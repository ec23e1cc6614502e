"""Which steps of a demonstration are done, in a small file that is replaced whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_whole

FILE = "state.json"
STARTED = "started"

# The steps whose results a step is made of: when one of these runs anew, the step does too.
MADE_OF: dict[str, tuple[str, ...]] = {
    "teacher": (),
    "distilled": ("teacher",),
    "plain": (),
    "validation": ("teacher", "distilled", "plain"),
    "onnx": ("distilled",),
    "picture": ("teacher", "distilled", "plain"),
}


class DemoState:
    """The finished steps of a demonstration, kept in its folder.

    Args:
        folder (Path): The run's folder; made if it is missing.
        fingerprint (Mapping[str, Any]): All that the results depend on.

    Raises:
        BadUseError: If the folder holds something else, or a demonstration with another fingerprint.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))
        self.steps: dict[str, Any] = {}
        if (folder / FILE).is_file():
            self.steps = self._read()
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadUseError(f"{folder} holds no demo: give the demo a folder of its own with name=")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._write()

    def _read(self) -> dict[str, Any]:
        """Return the steps of the folder's demonstration, if it is this one."""
        advice = "give this one another folder with name=, or delete that one"
        try:
            kept = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
            steps, before = {**kept["steps"]}, {**kept["fingerprint"]}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadUseError(f"{self.folder / FILE} cannot be read: {advice}") from e
        other = sorted(k for k in {*before, *self.fingerprint} if before.get(k) != self.fingerprint.get(k))
        if other:
            said = "; ".join(f"{k} was {_short(before.get(k))}, is {_short(self.fingerprint.get(k))}" for k in other)
            raise BadUseError(f"{self.folder} holds a demo with other settings ({said}): {advice}")
        return steps

    def done(self, step: str, files: Iterable[Path] = ()) -> bool:
        """Return whether a step is finished and its files are there."""
        return self.steps.get(step, STARTED) != STARTED and all(f.is_file() for f in files)

    def started(self, step: str) -> bool:
        """Return whether a step was begun and not finished."""
        return self.steps.get(step) == STARTED

    def start(self, step: str) -> None:
        """Note that a step begins; what was made of its earlier result no longer counts."""
        self.steps[step] = STARTED
        for later in _made_of(step):
            self.steps.pop(later, None)
        self._write()

    def finish(self, step: str, result: Any = True) -> None:
        """Note that a step is finished, with what it found."""
        self.steps[step] = result
        self._write()

    def _write(self) -> None:
        """Replace the file whole."""
        write_whole(self.folder / FILE, json.dumps({"fingerprint": self.fingerprint, "steps": self.steps}, indent=1))


def _made_of(step: str) -> list[str]:
    """List the steps that are made of a step's result, at one or more removes."""
    direct = [later for later, sources in MADE_OF.items() if step in sources]
    return [*direct, *(x for later in direct for x in _made_of(later))]


def _short(value: Any) -> str:
    """Return a value in at most 12 characters; hashes are long."""
    return str(value)[:12]
