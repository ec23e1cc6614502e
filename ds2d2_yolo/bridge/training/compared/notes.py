"""Notes on time, memory and data of a run of a comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ds2d2_yolo.utils.atomic_files import write_json

NOTES = "watched.json"


@dataclass
class Notes:
    """Notes on a run while it trains, in a file of its folder that is replaced atomically after every epoch.

    Attributes:
        sessions (int): How often its training was started or resumed.
        parallel (int): Largest number of simultaneous runs that any session allowed.
        initial_weights (str): Hash of the student's weights before the first step.
        first_epoch (str): Hash of the first batch's pixels and of all boxes of the first epoch in their order.
        epochs (dict[str, list[float]]): For each epoch its seconds, without validation, and its steps.
        peak_memory_mb (float): Peak memory in MB (1e6 bytes): of tensors on a GPU, otherwise of the process.
        trained (bool): Whether the last epoch is over.
    """

    sessions: int = 0
    parallel: int = 0
    initial_weights: str = ""
    first_epoch: str = ""
    epochs: dict[str, list[float]] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    trained: bool = False

    @classmethod
    def read(cls, folder: Path) -> Notes:
        """Return the notes of a run's folder, empty ones if there are none.

        Args:
            folder (Path): The run's folder.

        Returns:
            (Notes): The notes.
        """
        file = folder / NOTES
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Replace the notes of a run's folder.

        Args:
            folder (Path): The run's folder.
        """
        write_json(folder / NOTES, asdict(self))

    @property
    def train_seconds(self) -> float:
        """(float): Seconds of all epochs, without validation."""
        return sum(seconds for seconds, _ in self.epochs.values())

    @property
    def step_seconds(self) -> float:
        """(float): Seconds of a step in the median epoch."""
        each = sorted(seconds / steps for seconds, steps in self.epochs.values())
        return each[len(each) // 2] if each else 0.0
