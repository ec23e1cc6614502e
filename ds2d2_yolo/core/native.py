"""The Haar energies in C on a CPU, built with the C compiler that is found, once for each user.

Eager operations read features that are in the cache eight times where one pass of a loop does; no combination of them,
nor inductor's (torch 2.15: slower than eager, blocks of 2 x 2 are not vectorised), comes near. Without a compiler, and
wherever this does not work, everything goes on without it: `haar()` is None then. `DS2D2_NATIVE=0` turns it off.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ds2d2_yolo.core.wavelet import dwt2

SWITCH = "DS2D2_NATIVE"
SOURCE = Path(__file__).with_name("haar.c")
FLAGS = ("-O3", "-fPIC", "-shared")
PLAIN = "-DPLAIN"  # one copy of the code for all processors: older compilers have no other
SECONDS = 60  # a compiler that takes longer hangs

logger = logging.getLogger(__name__)


class Haar:
    """The energies of contiguous float32 features on a CPU with even sides, as `fused.HaarEnergy` needs them.

    Args:
        library (ctypes.CDLL): Built from `haar.c`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count, factor = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_float
        shared = [pointer] * 4 + [count] * 4
        self._energy, self._gradient = library.ds2d2_energy, library.ds2d2_gradient
        self._energy.argtypes, self._energy.restype = [*shared, pointer], ctypes.c_int
        self._gradient.argtypes, self._gradient.restype = [*shared, factor, factor, pointer], ctypes.c_int

    def energy(
        self, student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of ``W LL^2`` and of ``W (LH^2 + HL^2 + HH^2)`` of scale (student - teacher).

        Args:
            student (torch.Tensor): Contiguous float32, shape (B, C, 2 h, 2 w).
            teacher (torch.Tensor): Likewise.
            weight (torch.Tensor): Float32, shape (B, 1, h, w).
            scale (torch.Tensor, optional): Float32 factors of the channels, (C, 1, 1).

        Returns:
            low (torch.Tensor): Scalar, float64.
            high (torch.Tensor): Scalar, float64.

        Raises:
            MemoryError: If a few rows of scratch cannot be had.
        """
        sums, weight = torch.empty(2, dtype=torch.float64), weight.contiguous()
        _succeed(self._energy(*_arguments(student, teacher, weight, scale), sums.data_ptr()))
        low, high = sums
        return low, high

    def gradient(
        self,
        student: Tensor,
        teacher: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        low: float,
        high: float,
        out: Tensor,
    ) -> Tensor:
        """Write the gradient in student of half of ``low W LL^2 + high W (LH^2 + HL^2 + HH^2)`` into `out`.

        Args:
            student (torch.Tensor): As in `energy`.
            teacher (torch.Tensor): As in `energy`.
            weight (torch.Tensor): As in `energy`.
            scale (torch.Tensor | None): As in `energy`.
            low (float): Factor of the low band.
            high (float): Factor of the high bands.
            out (torch.Tensor): Contiguous float32, of the student's shape.

        Returns:
            (torch.Tensor): `out`.

        Raises:
            MemoryError: If a few rows of scratch cannot be had.
        """
        weight = weight.contiguous()
        _succeed(self._gradient(*_arguments(student, teacher, weight, scale), low, high, out.data_ptr()))
        return out


@functools.cache
def haar() -> Haar | None:
    """Return the energies in C, built on the first call; None where that is switched off or does not work."""
    if os.environ.get(SWITCH, "").strip() == "0":
        return None
    try:
        found = Haar(_library())
        _check(found)
    except Exception as e:  # no compiler, no home, a full disk: whatever it is, it is no reason to end a training
        logger.debug("explicit terms without C: %s", e)
        return None
    return found


def _arguments(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[int | None, ...]:
    """Return the arguments that both functions begin with."""
    (batch, channels), (h, w) = student.shape[:2], weight.shape[-2:]
    factors = None if scale is None else scale.data_ptr()
    return student.data_ptr(), teacher.data_ptr(), weight.data_ptr(), factors, batch * channels, channels, h, w


def _succeed(status: int) -> None:
    """Raise MemoryError if a C function could not have its scratch."""
    if status:
        raise MemoryError("no memory for a few rows of scratch")


def _library() -> ctypes.CDLL:
    """Load what was built for this source and this kind of machine, or build it.

    Raises:
        OSError: If there is no compiler, or the file cannot be written or loaded, or the folder is someone else's.
        subprocess.SubprocessError: If the compiler fails.
    """
    origin = (SOURCE.read_bytes(), *FLAGS, platform.system(), platform.machine())
    key = hashlib.sha256(repr(origin).encode()).hexdigest()[:16]
    file = _folder() / f"haar-{key}.so"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix" and file.parent.stat().st_uid != os.getuid():  # what lies there could be anyone's code
        raise PermissionError(f"{file.parent} belongs to someone else")
    if file.is_file():
        with contextlib.suppress(OSError):  # what a full disk or a crash left of it is built again
            return ctypes.CDLL(str(file))
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        _compile(built := Path(folder) / file.name)
        os.replace(built, file)  # whole or not at all, whoever builds it at the same time
    return ctypes.CDLL(str(file))


def _folder() -> Path:
    """Return the user's folder for what can be made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ds2d2_yolo"


def _compile(file: Path) -> None:
    """Build the library with `$CC` or the system's compiler."""
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for c in ("cc", "gcc", "clang") if (found := shutil.which(c))][:1]
    )
    if not compiler:
        raise FileNotFoundError("no C compiler")
    command = [*compiler, *FLAGS, str(SOURCE), "-o", str(file)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    except subprocess.CalledProcessError:
        subprocess.run([*command, PLAIN], check=True, capture_output=True, timeout=SECONDS)


def _check(haar: Haar) -> None:
    """Compare with the transform on a small feature: what a compiler gets wrong must not reach a training.

    Raises:
        ArithmeticError: If the results differ.
    """
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 2, 3, 10, 38, generator=generator)
    weight = 1 + torch.rand(2, 1, 5, 19, generator=generator)
    scale = 1 + torch.rand(3, 1, 1, generator=generator)
    leaf = student.double().requires_grad_()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        low, high = dwt2((leaf - teacher) * scale)
        energies = (weight * low.square()).sum(), (weight.unsqueeze(2) * high.square()).sum()
        (gradient,) = torch.autograd.grad(0.35 * energies[0] + 0.1 * energies[1], leaf)
    found = haar.energy(student, teacher, weight, scale)
    out = haar.gradient(student, teacher, weight, scale, 0.7, 0.2, torch.empty_like(student))
    same = torch.allclose(torch.stack(found), torch.stack(energies).detach(), rtol=1e-5, atol=0)
    if not (same and torch.allclose(out.double(), gradient, rtol=1e-4, atol=1e-5)):
        raise ArithmeticError("the C code gave other results than the transform")
