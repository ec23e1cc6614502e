"""Fixtures `device` and `dtype`: each test that takes them runs on all of `--device` and `--dtype`."""

from __future__ import annotations

import pytest
import torch

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def chosen_devices(config: pytest.Config) -> list[torch.device]:
    """Devices of the command line."""
    devices = [torch.device(name.strip()) for name in config.getoption("device").split(",")]
    if any(device.type == "cuda" for device in devices) and not torch.cuda.is_available():
        raise pytest.UsageError("--device=cuda needs a CUDA device")
    return devices


def chosen_dtypes(config: pytest.Config) -> list[torch.dtype]:
    """Floating-point types of the command line."""
    names = [name.strip() for name in config.getoption("dtype").split(",")]
    if unknown := [name for name in names if name not in DTYPES]:
        raise pytest.UsageError(f"--dtype={unknown[0]}: choose from {', '.join(DTYPES)}")
    return [DTYPES[name] for name in names]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each device and type, unless the test lists them itself."""
    listed = ",".join(str(m.args[0]) for m in metafunc.definition.iter_markers("parametrize"))
    for name, choose in (("device", chosen_devices), ("dtype", chosen_dtypes)):
        if name in metafunc.fixturenames and name not in listed:
            metafunc.parametrize(name, choose(metafunc.config), ids=lambda x: str(x).removeprefix("torch."))
