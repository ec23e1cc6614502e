"""Deployment: exports that are compared with PyTorch, and benchmarks of latency, size, memory and mAP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds2d2_yolo.deploy.benchmarks.benchmark_run import Benchmark
    from ds2d2_yolo.deploy.exporting import Exported

__all__ = ["benchmark", "export"]


def export(**keys: Any) -> Exported:
    """Export a checkpoint and compare the file with PyTorch.

    Args:
        **keys (Any): See `deploy.exporting.export`.

    Returns:
        (Exported): The file and the comparison.
    """
    from ds2d2_yolo.deploy.exporting import export as run

    return run(**keys)


def benchmark(**keys: Any) -> Benchmark:
    """Measure latency, throughput, size, memory and mAP of checkpoints in several formats.

    Args:
        **keys (Any): See `deploy.benchmarks.benchmarking.benchmark`.

    Returns:
        (Benchmark): The measurements.
    """
    from ds2d2_yolo.deploy.benchmarks.benchmarking import benchmark as run

    return run(**keys)
