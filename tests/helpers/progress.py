"""The tasks whose progress a module shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from ds2d2_yolo.utils.progress import Task, tracked


def recorded_tasks(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Return a list that fills with the tasks of a module, which count no unit at their end."""
    tasks: list[Task] = []

    @contextmanager
    def recorded(*arguments: Any, **keywords: Any) -> Iterator[Task]:
        with tracked(*arguments, **{**keywords, "fill": False}) as task:
            tasks.append(task)
            yield task

    monkeypatch.setattr(module, "tracked", recorded)
    return tasks
