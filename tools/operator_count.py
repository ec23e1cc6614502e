"""Count the kernels of a computation, the bytes that they move and their floating-point operations, without a GPU.

Tensors are fake: they have a shape, a type and a device, and no memory. Each operator counts as one kernel,
which reads every input once and writes every output once. A convolution counts as cuDNN computes it: its bias is added
by a kernel of its own, and each gradient is one kernel. Views and allocations are free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

GPU, META = torch.device("cuda"), torch.device("meta")
OVERWRITING = {"copy_", "fill_", "zero_"}  # in-place operators that do not read what they change
FREE = {"_unsafe_view", "unsafe_split", "unsafe_chunk", "promote_types", "device"}  # beside views and allocations
ALLOCATING = ("empty", "new_empty")


@dataclass(frozen=True)
class Kernel:
    """What one kernel does.

    Attributes:
        bytes (int): Read and written.
        flops (int): Operations of convolutions and matrix products.
    """

    bytes: int
    flops: int = 0


@dataclass(frozen=True)
class Device:
    """Published figures of a GPU.

    Attributes:
        name (str): For a table.
        bandwidth (float): Of its memory, bytes a second.
        half (float): Dense operations a second of its matrix units, float16 with float32 sums.
        single (float): The same in TF32, in which cuDNN computes float32 convolutions.
    """

    name: str
    bandwidth: float
    half: float
    single: float


@dataclass
class Work:
    """Kernels of a part of a step, with the number of times that each is launched.

    Attributes:
        kernels (Counter[Kernel]): Launches of each kernel; negative where a difference of parts leaves fewer.
    """

    kernels: Counter[Kernel] = field(default_factory=Counter)

    def __add__(self, other: Work) -> Work:
        """Return the work of both parts."""
        total = Counter(self.kernels)
        total.update(other.kernels)
        return Work(total)

    def __sub__(self, other: Work) -> Work:
        """Return the work without that of a part of it."""
        total = Counter(self.kernels)
        total.subtract(other.kernels)
        return Work(total)

    @property
    def bytes(self) -> int:
        """(int): Read and written."""
        return sum(kernel.bytes * count for kernel, count in self.kernels.items())

    @property
    def flops(self) -> int:
        """(int): Operations of convolutions and matrix products."""
        return sum(kernel.flops * count for kernel, count in self.kernels.items())

    @property
    def launches(self) -> int:
        """(int): Number of kernels."""
        return sum(self.kernels.values())

    def seconds(self, device: Device, half: bool) -> float:
        """Return a lower bound of the time: the sum over the kernels of max(bytes / bandwidth, operations / rate).

        Args:
            device (Device): On which the kernels run, one after the other.
            half (bool): Whether the matrix units compute in float16.

        Returns:
            (float): Seconds, without launch overhead.
        """
        rate = device.half if half else device.single
        return sum(max(k.bytes / device.bandwidth, k.flops / rate) * n for k, n in self.kernels.items())


def size_of(values: Any) -> int:
    """Return the bytes of the tensors in nested values; elements that an expanded tensor repeats count once.

    Args:
        values (Any): Arguments or results of an operator.

    Returns:
        (int): Bytes.
    """
    size = 0
    for x in tree_leaves(values):
        if isinstance(x, Tensor):
            distinct = [n for n, stride in zip(x.shape, x.stride(), strict=True) if stride]
            size += x.element_size() * int(torch.Size(distinct).numel()) * bool(x.numel())
    return size


def kernels_of(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> list[Kernel]:
    """Return the kernels that an operator launches.

    Args:
        func (OpOverload): The operator.
        args (tuple[Any, ...]): Its positional arguments.
        kwargs (dict[str, Any]): Its keyword arguments.
        out (Any): What it returned.

    Returns:
        (list[Kernel]): None for a view, an allocation, or an operator without tensors.
    """
    schema, name = func._schema, func._overloadpacket.__name__
    written = [a.is_out or bool(a.alias_info and a.alias_info.is_write) for a in schema.arguments]
    views = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
    if views or name in FREE or name.startswith(ALLOCATING):
        return []
    operations = flop_registry.get(func._overloadpacket)
    flops = int(operations(*args, **kwargs, out_val=out)) if operations else 0
    if name == "convolution":
        data, weight, bias = args[:3]
        main = Kernel(size_of((data, weight, out)), flops)
        return [main] if bias is None else [main, Kernel(2 * size_of(out) + size_of(bias))]
    if name == "convolution_backward":
        (grad, data, weight), (of_data, of_weight, of_bias) = args[:3], out
        share = flops // max(1, (of_data is not None) + (of_weight is not None))
        parts = (weight, of_data, share), (data, of_weight, share), (None, of_bias, 0)
        return [Kernel(size_of((grad, read, made)), part) for read, made, part in parts if made is not None]
    values = {a.name: value for a, value in zip(schema.arguments, args, strict=False)} | kwargs
    overwrites, fills = name in OVERWRITING, name.endswith("_like") or name.startswith("new_")
    size = 0
    for argument, writes in zip(schema.arguments, written, strict=True):
        times = 0 if fills else 1 if not writes or argument.is_out or overwrites else 2
        size += times * size_of(values.get(argument.name))
    made = out if len(schema.returns) != 1 else (out,)
    new = [x for x, r in zip(made or (), schema.returns, strict=False) if not r.alias_info]
    return [Kernel(size + size_of(new), flops)] if size + size_of(new) else []


class OperatorCount(TorchDispatchMode):
    """Collects the kernels of the operators that run while it is active, backward passes included.

    Autograd's engine asks the driver for a context of each gradient's device. For a fake GPU there is none. The engine
    asks an operator for the device: told 'meta', it needs no context. What it allocates on 'meta' goes to the fake GPU.
    Autocast asks the same operator and finds no GPU, so that it does not act on fake GPUs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add its kernels."""
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == META:
            kwargs["device"] = GPU
        out = func(*args, **kwargs)
        if func is torch.ops.prim.device.default:
            return META if out.type == GPU.type else out
        self.work.kernels.update(kernels_of(func, args, kwargs, out))
        return out


def count(run: Callable[[], Any]) -> tuple[Work, Any]:
    """Run a function and count its kernels.

    Args:
        run (Callable[[], Any]): Without arguments.

    Returns:
        work (Work): Of the function.
        result (Any): What the function returned.
    """
    with OperatorCount() as counter:
        result = run()
    return counter.work, result


@contextmanager
def fake_tensors(device: torch.device) -> Iterator[None]:
    """Make new tensors fake ones.

    Args:
        device (torch.device): Their device, unless it is named where they are made. It need not exist.
    """
    with FakeTensorMode(), device:
        yield


def to_fake(module: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Replace the parameters and buffers of a module by fake ones, in place; call it inside `fake_tensors`.

    Args:
        module (nn.Module): Any module. Modules that share a submodule share what replaces its parameters.
        device (torch.device): Of the fake ones.
        dtype (torch.dtype | None): Of the floating-point ones; None leaves it.
    """
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, x in tensors.items():
                if x is not None and (x.device != device or not isinstance(x, FakeTensor)):
                    target_dtype = dtype if dtype and x.is_floating_point() else x.dtype
                    fake = torch.empty_strided(x.shape, x.stride(), dtype=target_dtype, device=device)
                    tensors[name] = nn.Parameter(fake, x.requires_grad) if isinstance(x, nn.Parameter) else fake
