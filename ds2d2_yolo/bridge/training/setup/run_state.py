"""The state of a run that travels in Ultralytics' arguments: into args.yaml, every checkpoint and DDP processes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.config.recipes import saved_settings
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

FORMAT = 3  # of the block in the arguments, and of the columns of results.csv, which Ultralytics appends to


@dataclass(frozen=True)
class RunState:
    """What a resumed run, or a process that Ultralytics launches for DDP, has to know.

    Ultralytics refuses unknown keys in its settings, but keeps unknown attributes of the arguments. The state is one
    such attribute, a dictionary of plain values. `store` writes it; nothing else changes it.

    Attributes:
        settings (Settings): The run's DS2D2 settings, with the teacher's absolute path.
        teacher_sha256 (str): Hash of the teacher's weights.
        amplifier_path (str | None): File of the run's amplifier.
        gains (dict[str, Any] | None): `Gains.state()` at the last saved epoch.
        batch_size (int | None): Batch size for which the gains were calibrated.
        report_files (dict[str, str] | None): Contents by file name, while Ultralytics launches several processes: its
            launch deletes the files that the launching process wrote.
    """

    settings: Settings
    teacher_sha256: str
    amplifier_path: str | None = None
    gains: dict[str, Any] | None = None
    batch_size: int | None = None
    report_files: dict[str, str] | None = None

    def store(self, args: Namespace) -> None:
        """Write the state into Ultralytics' arguments.

        Args:
            args (Namespace): The trainer's arguments; the next args.yaml or checkpoint contains the state.
        """
        block = {k: v for k, v in vars(self).items() if k != "settings"}
        setattr(args, ARGS_KEY, {"format": FORMAT, "settings": self.settings.as_dict(), **block})

    def without_report(self) -> RunState:
        """Return the state without the report's files."""
        return replace(self, report_files=None)

    @classmethod
    def of(cls, block: Mapping[str, Any] | None) -> RunState | None:
        """Return the state in a block of Ultralytics' arguments, None for no block.

        Args:
            block (Mapping[str, Any] | None): The attribute of the arguments, or the same key of an args.yaml.

        Returns:
            (RunState | None): The state.

        Raises:
            BadUseError: If another version of this package wrote it.
        """
        if not block:
            return None
        values = dict(block)
        if values.pop("format", None) != FORMAT:
            raise BadUseError(
                "this run was begun by another version of ds2d2-yolo: resume it with that version, or start it anew"
            )
        return cls(**{**values, "settings": saved_settings(values["settings"])})
