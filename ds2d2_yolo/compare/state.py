"""What is done in the folder of a comparison, and what it is a comparison of; files that are replaced whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.results import Result, add_results, read_results
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_json

FILE = "compare.json"
RESULTS = "results.csv"
ADVICE = "give this one another folder with name=, or delete that one"


class CompareState:
    """The finished runs of a comparison, kept in its folder.

    Runs count as finished by their rows in results.csv alone: their folders may be deleted, or lie elsewhere.

    An arm may be defined anew as long as none of its runs has begun.

    Args:
        folder (Path): The comparison's folder, there or not; `begin` makes it.
        fingerprint (Mapping[str, Any]): All that the results of every arm depend on.
        arms (Mapping[str, Any]): For each arm what its results depend on besides. Arms may be added later.
        defaults (Mapping[str, Any]): Settings of an arm that a folder's older version may not have had: what was run
            there without them was run with these.

    Raises:
        BadUseError: If the folder holds something else, or a comparison that differs.
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
        self.results = folder / RESULTS
        self._defaults = json.loads(json.dumps(defaults or {}))
        kept = self._kept()
        said = self._differences(kept)
        before = kept.get("arms", {})
        self.arms = {**before, **self.arms, **before}  # in their order, as they were: their rows keep their hash
        self._refuse_others(said)

    def begin(self) -> None:
        """Make the folder, and keep what it is a comparison of."""
        write_json(self.folder / FILE, {"fingerprint": self.fingerprint, "arms": self.arms})

    def hash_of(self, arm: str) -> str:
        """Return the hash of all that an arm's results depend on but the seed, 12 digits."""
        text = json.dumps([self.fingerprint, self.arms[arm]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def done(self, arm: str, seed: int) -> bool:
        """Return whether a run has its rows."""
        return (arm, seed) in {(row.arm, row.seed) for row in self.rows()}

    def rows(self) -> list[Result]:
        """Return the rows of all finished runs."""
        return rows_in(self.folder)

    def add(self, rows: list[Result]) -> None:
        """Keep the rows of a finished run."""
        add_results(self.results, rows, self.arms)

    def _kept(self) -> dict[str, Any]:
        """Return what the folder says of its comparison, nothing for a new one."""
        folder, file = self.folder, self.folder / FILE
        if not file.is_file():
            strange = folder.exists() and (not folder.is_dir() or any(f.name[0] != "." for f in folder.iterdir()))
            if strange and not self.results.is_file():
                raise BadUseError(f"{folder} holds no comparison: give the comparison a folder of its own with name=")
            return {}
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            fingerprint = dict(kept["fingerprint"])
            arms = {k: {"kind": v["kind"], "settings": dict(v["settings"])} for k, v in dict(kept["arms"]).items()}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadUseError(f"{file} cannot be read: {ADVICE}") from e
        begun = {row.arm for row in self.rows()} | {arm for arm in arms if (folder / arm).exists()}
        return {"fingerprint": fingerprint, "arms": {k: v for k, v in arms.items() if k in begun}} if begun else {}

    def _differences(self, kept: Mapping[str, Any]) -> list[str]:
        """Say in what the folder's comparison differs from this one."""
        said = _differences(kept.get("fingerprint", self.fingerprint), self.fingerprint)
        before = kept.get("arms", {})
        for arm in self.arms.keys() & before.keys():
            settings = {**self._defaults, **before[arm]["settings"]} if before[arm]["kind"] == "ds2d2" else {}
            complete = {**before[arm], "settings": settings or before[arm]["settings"]}
            said += [f"arm {arm}: {text}" for text in _differences(complete, self.arms[arm])]
        return said

    def _refuse_others(self, said: list[str]) -> None:
        """Refuse a folder whose comparison differs from this one, or whose rows do."""
        if said:
            raise BadUseError(f"{self.folder} holds a comparison that differs ({'; '.join(said)}): {ADVICE}")
        rows = [row for row in self.rows() if row.arm in self.arms and row.settings_hash != self.hash_of(row.arm)]
        if rows:
            raise BadUseError(f"{self.results} holds runs of arm {rows[0].arm} with other settings: {ADVICE}")


def rows_in(folder: Path) -> list[Result]:
    """Return the raw results of a comparison's folder, none for a new one."""
    file = folder / RESULTS
    return read_results(file) if file.is_file() else []


def folder_of(folder: Path, arm: str, seed: int) -> Path:
    """Return the folder of a run; seed -1 is the teacher's."""
    return folder / arm / ("measured" if seed < 0 else f"seed{seed}")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which entries two mappings differ, nested ones by their own entries."""
    said: list[str] = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            said += _differences(old, new)
        elif old != new:
            said.append(f"{key} was {old}, is {new}")
    return said
