"""Compile the Triton kernels for GPUs that need not be there; a program, as the interpreter must be off."""

from __future__ import annotations

import inspect
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ds2d2_yolo.core.haar.fused import _CELLS, _CHANNELS
from ds2d2_yolo.core.haar.kernel import energy_kernel, gradient_kernel

CAPABILITIES = (87, 89, 90)  # Jetson Orin, RTX 4090, H200


def compile_kernel(kernel: Any, capability: int, dtype: str, channels_last: bool) -> str:
    """Return the instructions of a kernel, for a student in one of the two memory orders."""
    unit_strides = ("s_channel", "g_channel") if channels_last else ("s_column", "g_column")
    constants: dict[str, int] = {"CHANNELS": _CHANNELS, "CELLS": _CELLS}
    constants |= dict.fromkeys((*unit_strides, "t_column"), 1)  # Triton treats an argument of 1 as a constant
    types = dict.fromkeys(("student", "teacher", "grad"), f"*{dtype}")
    types |= dict.fromkeys(("weight", "sums", "grad_low", "grad_high"), "*fp32")
    types |= {"of_low": "fp32", "of_high": "fp32"} | dict.fromkeys(constants, "constexpr")
    names = list(inspect.signature(kernel.fn).parameters)
    signature = {name: types.get(name, "i32") for name in names}
    source = ASTSource(kernel, signature, constexprs={n: v for n, v in constants.items() if n in names})
    return str(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"])


if __name__ == "__main__":
    for of_kernel in (energy_kernel, gradient_kernel):
        for target in CAPABILITIES:
            for type_name, last in (("fp16", True), ("fp32", False)):
                text = compile_kernel(of_kernel, target, type_name, last)
                print(of_kernel.fn.__name__, target, type_name, last, f".target sm_{target}" in text, sep="\t")
