"""Values that the processes of several machines exchange before their process group exists, through torchrun's store.

Ultralytics (8.4.190) makes the process group after the trainer has read data and teacher. If a process fails before,
torchrun ends only the processes of its machine. Those of the other machines would wait for hours.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultralytics.utils import RANK

from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

WAIT = timedelta(hours=3)  # as long as Ultralytics (8.4.190) waits for a process
CHUNK = 4 << 20  # bytes; torch's store takes at most 8 MiB in one value
# names of the exchanged values, in their order
CONTINUED, SEEN, INPUTS, BEGUN = "continued", "seen", "inputs", "begun"


def several_machines() -> bool:
    """Return whether torchrun started this process together with processes of other machines."""
    return RANK >= 0 and int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1


def machine_name() -> str:
    """Return this machine as messages name it, by torchrun's number and its host name."""
    return f"machine {os.environ.get('GROUP_RANK', '0')} ({socket.gethostname()})"


class MachineStore:
    """The store of a launch, seen from one of its processes.

    Each value is written once; a second one under the same name has no effect.

    Args:
        store (Store): Torch's store, the same in all processes.
        rank (int): Rank of this process.
        size (int): Number of processes.
        wait (timedelta): How long a process waits for the others.

    Attributes:
        rank (int): As above.
        compared (bool): Whether this process has told the others its inputs or its error.
    """

    def __init__(self, store: Store, rank: int, size: int, wait: timedelta = WAIT) -> None:
        self._store, self.rank, self._size, self._wait = store, rank, size, wait
        self.compared = False

    def gather(self, name: str, value: Any) -> list[Any]:
        """Exchange a value among all processes.

        Args:
            name (str): Name of the exchange.
            value (Any): Value of this process, of JSON's types.

        Returns:
            (list[Any]): The values by rank.
        """
        self._write(f"{name}/{self.rank}", value)
        values = [self._read(f"{name}/{rank}") for rank in range(self._size)]
        self._write(f"{name}/done/{self.rank}", None)
        if self.rank == 0:  # the store may end with this process
            for rank in range(self._size):
                self._read(f"{name}/done/{rank}")
        return values

    def from_rank0(self, name: str, value: Any = None) -> Any:
        """Return the value of rank 0.

        Args:
            name (str): Name of the value.
            value (Any): The value in rank 0, of JSON's types.

        Returns:
            (Any): The value.

        Raises:
            BadUseError: In the other processes, if rank 0 has failed.
        """
        if self.rank == 0:
            self._write(name, {"value": value})
            return value
        answer = self._read(name)
        if "error" in answer:
            raise BadUseError(answer["error"])
        return answer["value"]

    def fail(self, error: Exception) -> None:
        """Tell the other processes that this one has failed, and wait until they know.

        Args:
            error (Exception): Why it failed.
        """
        if self.compared:
            return
        self.compared = True
        line = first_line(error)
        if self.rank == 0:
            self._write(CONTINUED, {"error": f"{machine_name()}: {line}"})
        for key in (f"{SEEN}/{self.rank}", f"{SEEN}/done/{self.rank}"):  # the others may wait for this one there
            self._write(key, True)
        self.gather(INPUTS, {"machine": machine_name(), "error": line})

    def fail_to_begin(self, error: BaseException) -> None:
        """Tell the other processes that rank 0 could not begin the run.

        Args:
            error (BaseException): Why not.
        """
        self._write(BEGUN, {"error": f"{machine_name()}: {first_line(error)}"})

    def send_file(self, name: str, file: Path) -> None:
        """Write a file into the store, in pieces.

        Args:
            name (str): Name of the file in the store.
            file (Path): The file.
        """
        pieces = 0
        with file.open("rb") as f:
            while piece := f.read(CHUNK):
                # the binding takes bytes too, its type stub says str (torch 2.15)
                self._store.set(f"{name}/{pieces}", piece)  # type: ignore[arg-type,unused-ignore]
                pieces += 1
        self._write(f"{name}/pieces", pieces)

    def receive_file(self, name: str, target: Path) -> None:
        """Read a file that another process sends.

        Args:
            name (str): Name of the file in the store.
            target (Path): File to write.
        """
        with target.open("wb") as f:
            for piece in range(self._read(f"{name}/pieces")):
                f.write(self._store.get(f"{name}/{piece}"))

    def _write(self, key: str, value: Any) -> None:
        """Set a value, unless there is one."""
        self._store.compare_set(key, "", json.dumps(value))

    def _read(self, key: str) -> Any:
        """Wait for a value and return it."""
        self._store.wait([key], self._wait)
        return json.loads(self._store.get(key))


@cache
def machine_store() -> MachineStore:
    """Return the store of this launch. There is one for each process: rank 0 may host it until the process ends."""
    from torch._C._distributed_c10d import PrefixStore  # some builds of torch lack it
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=WAIT))
    return MachineStore(PrefixStore("ds2d2", store), rank, size)


@contextmanager
def stop_together() -> Iterator[None]:
    """Let an error before the training stop the processes of all machines; no effect on one machine.

    Yields:
        (None): An error inside the context reaches the other processes, unless they have compared their inputs already.
    """
    try:
        yield
    except Exception as e:
        if several_machines():
            machine_store().fail(e)
        raise
