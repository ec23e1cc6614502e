"""From a checkpoint to the device: exports that are compared with PyTorch, and what each costs and reaches here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds2d2_yolo.deploy.benchmarking import Benchmark
    from ds2d2_yolo.deploy.exporting import Exported

__all__ = ["benchmark", "export"]


def export(**keys: Any) -> Exported:
    """Export a checkpoint and compare the file with PyTorch; see `deploy.exporting.export`."""
    from ds2d2_yolo.deploy.exporting import export as run

    return run(**keys)


def benchmark(**keys: Any) -> Benchmark:
    """Measure checkpoints in formats; see `deploy.benchmarking.benchmark`."""
    from ds2d2_yolo.deploy.benchmarking import benchmark as run

    return run(**keys)
