"""State of a comparison in its folder: its identity and its finished runs, in files that are replaced atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.results import RunResult, add_results, read_results
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_json

STATE_FILE = "compare.json"
RESULTS_FILE = "results.csv"
ADVICE = "give this one another folder with name=, or delete that one"


class CompareState:
    """The finished runs of a comparison, stored in its folder.

    A run is finished if results.csv has its rows. Its folder may be deleted or moved.

    The definition of an arm may change as long as none of its runs has begun.

    Args:
        folder (Path): Folder of the comparison, existing or not; `begin` makes it.
        fingerprint (Mapping[str, Any]): Everything that the results of all arms depend on.
        arms (Mapping[str, Any]): Name of each arm -> everything else that its results depend on. Arms may be added
            later.
        defaults (Mapping[str, Any]): Default settings of an arm. A folder of an older version may lack some of them:
            its runs had the defaults.

    Raises:
        BadUseError: If the folder holds something else, or another comparison.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        arms: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))
        self.arms: dict[str, Any] = json.loads(json.dumps(arms))
        self.results = folder / RESULTS_FILE
        self._defaults = json.loads(json.dumps(defaults or {}))
        stored = self._read()
        differences = self._differences(stored)
        earlier = stored.get("arms", {})
        self.arms = {
            **earlier,
            **self.arms,
            **earlier,
        }  # order and definition of earlier arms: their rows have its hash
        self._refuse_different(differences)

    def begin(self) -> None:
        """Make the folder and write the identity of the comparison."""
        write_json(self.folder / STATE_FILE, {"fingerprint": self.fingerprint, "arms": self.arms})

    def hash_of(self, arm: str) -> str:
        """Return the hash of everything that an arm's results depend on except the seed, 12 digits."""
        text = json.dumps([self.fingerprint, self.arms[arm]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def done(self, arm: str, seed: int) -> bool:
        """Return whether a run is finished."""
        return (arm, seed) in {(row.arm, row.seed) for row in self.rows()}

    def rows(self) -> list[RunResult]:
        """Return the rows of all finished runs."""
        return read_rows(self.folder)

    def add(self, rows: list[RunResult]) -> None:
        """Add the rows of a finished run."""
        add_results(self.results, rows, self.arms)

    def _read(self) -> dict[str, Any]:
        """Return the identity of the folder's comparison as far as its runs have begun, empty for a new folder."""
        folder, file = self.folder, self.folder / STATE_FILE
        if not file.is_file():
            occupied = folder.exists() and (not folder.is_dir() or any(f.name[0] != "." for f in folder.iterdir()))
            if occupied and not self.results.is_file():
                raise BadUseError(f"{folder} holds no comparison: give the comparison a folder of its own with name=")
            return {}
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            fingerprint = dict(stored["fingerprint"])
            arms = {k: {"kind": v["kind"], "settings": dict(v["settings"])} for k, v in dict(stored["arms"]).items()}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadUseError(f"{file} cannot be read: {ADVICE}") from e
        begun = {row.arm for row in self.rows()} | {arm for arm in arms if (folder / arm).exists()}
        return {"fingerprint": fingerprint, "arms": {k: v for k, v in arms.items() if k in begun}} if begun else {}

    def _differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Describe how the folder's comparison differs from this one."""
        differences = _describe_differences(stored.get("fingerprint", self.fingerprint), self.fingerprint)
        earlier = stored.get("arms", {})
        for arm in self.arms.keys() & earlier.keys():
            settings = {**self._defaults, **earlier[arm]["settings"]} if earlier[arm]["kind"] == "ds2d2" else {}
            complete = {**earlier[arm], "settings": settings or earlier[arm]["settings"]}
            differences += [f"arm {arm}: {text}" for text in _describe_differences(complete, self.arms[arm])]
        return differences

    def _refuse_different(self, differences: list[str]) -> None:
        """Refuse a folder whose comparison or rows differ from this comparison."""
        if differences:
            raise BadUseError(f"{self.folder} holds a comparison that differs ({'; '.join(differences)}): {ADVICE}")
        rows = [row for row in self.rows() if row.arm in self.arms and row.settings_hash != self.hash_of(row.arm)]
        if rows:
            raise BadUseError(f"{self.results} holds runs of arm {rows[0].arm} with other settings: {ADVICE}")


def read_rows(folder: Path) -> list[RunResult]:
    """Return the raw results in the folder of a comparison, empty for a new folder."""
    file = folder / RESULTS_FILE
    return read_results(file) if file.is_file() else []


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return the folder of a run; seed -1 stands for the teacher."""
    return folder / arm / ("measured" if seed < 0 else f"seed{seed}")


def _describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the entries in which two mappings differ, those of nested mappings one by one."""
    differences: list[str] = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differences += _describe_differences(old, new)
        elif old != new:
            differences.append(f"{key} was {old}, is {new}")
    return differences
