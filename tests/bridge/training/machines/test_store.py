"""What processes tell each other before their group exists, through a store that threads share here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from ds2d2_yolo.bridge.training.continued_run import shared_file
from ds2d2_yolo.bridge.training.machines import store as module
from ds2d2_yolo.bridge.training.machines.store import (
    BEGUN,
    CHUNK,
    CONTINUED,
    INPUTS,
    MachineStore,
    several_machines,
    stop_together,
)
from ds2d2_yolo.errors import BadUseError

WAIT = timedelta(seconds=20)


def in_ranks(size: int, work: Callable[[MachineStore], Any]) -> list[Any]:
    """Return what each rank's work returns, or raises."""
    store = dist.HashStore()

    def of_rank(rank: int) -> Any:
        try:
            return work(MachineStore(store, rank, size, WAIT))
        except Exception as e:
            return e

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(of_rank, range(size)))


def test_every_rank_gathers_all_values() -> None:
    assert (
        in_ranks(3, lambda store: store.gather("ranks", {"rank": store.rank}))
        == [[{"rank": 0}, {"rank": 1}, {"rank": 2}]] * 3
    )


def test_the_first_value_of_a_name_counts() -> None:
    store = MachineStore(dist.HashStore(), 0, 1, WAIT)
    assert store.gather("value", 1) == [1]
    assert store.gather("value", 2) == [1]


def test_rank_0_decides() -> None:
    assert in_ranks(2, lambda store: store.from_rank0("decision", "yes" if store.rank == 0 else None)) == ["yes"] * 2


def test_a_rank_that_never_comes_ends_the_wait() -> None:
    store = MachineStore(dist.HashStore(), 0, 2, timedelta(seconds=0.2))
    with pytest.raises(dist.DistStoreError):
        store.gather("values", 0)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_reaches_the_others(failing: int) -> None:
    def work(store: MachineStore) -> list[Any]:
        if store.rank == failing:
            store.fail(ValueError("the disk is missing\nsecond line"))
            store.fail(ValueError("a later error, which nobody waits for"))
        return store.gather(INPUTS, {"inputs": {}})

    for values in in_ranks(2, work):
        assert values[failing]["error"] == "the disk is missing"
        assert "error" not in values[1 - failing]


def test_rank_0_that_fails_early_ends_the_wait_for_its_decisions() -> None:
    def work(store: MachineStore) -> Any:
        if store.rank == 0:
            store.fail_to_begin(KeyboardInterrupt())
            return store.fail(ValueError("no such run"))
        try:
            store.from_rank0(CONTINUED)
        except BadUseError as e:
            store.fail(e)
            with pytest.raises(BadUseError, match="KeyboardInterrupt"):
                store.from_rank0(BEGUN)
            return str(e)

    assert in_ranks(2, work)[1].endswith(": no such run")


def test_a_rank_that_fails_early_holds_up_no_copy_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_bytes(b"weights")

    def work(store: MachineStore) -> Any:
        if store.rank == 1:
            store.fail(ValueError("no such setting"))
            return None
        shared_file(store, file, sha256(file), tmp_path)
        return store.gather(INPUTS, {"inputs": {}})[1]["error"]

    assert in_ranks(2, work) == ["no such setting", None]


@pytest.mark.parametrize("size", [0, 10, CHUNK, CHUNK + 1])
def test_a_file_of_rank_0_reaches_ranks_without_it(size: int, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "last.pt"
    file.parent.mkdir()
    file.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    elsewhere = tmp_path / "other machine" / "weights" / "last.pt"

    def work(store: MachineStore) -> Path:
        (tmp_path / str(store.rank)).mkdir()
        seen = elsewhere if store.rank == 1 else file
        return shared_file(store, seen, sha256(file), tmp_path / str(store.rank))

    first, second, third = in_ranks(3, work)
    assert first == third == file
    assert second == tmp_path / "1" / "weights" / "last.pt"
    assert second.read_bytes() == file.read_bytes()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_all_see_is_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_bytes(b"weights")
    store = dist.HashStore()

    def work(rank: int) -> Path:
        return shared_file(MachineStore(store, rank, 2, WAIT), file, sha256(file), tmp_path)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [file, file]
    assert not store.check([f"{CONTINUED}/file/pieces"])


def test_an_old_copy_is_replaced_by_that_of_rank_0(tmp_path: Path) -> None:
    contents = {0: b"epoch 7", 1: b"epoch 3"}

    def work(store: MachineStore) -> bytes:
        file = tmp_path / f"disk{store.rank}" / "last.pt"
        file.parent.mkdir()
        file.write_bytes(contents[store.rank])
        copies = tmp_path / f"copies{store.rank}"
        copies.mkdir()
        content = "of epoch 7" if store.rank else sha256(file)
        return shared_file(store, file, content, copies).read_bytes()

    assert in_ranks(2, work) == [b"epoch 7"] * 2


@pytest.mark.parametrize(
    ("rank", "nodes", "several"), [(-1, "2", False), (0, "1", False), (0, None, False), (1, "2", True)]
)
def test_several_machines_are_those_of_torchrun(
    rank: int, nodes: str | None, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANK", rank)
    monkeypatch.delenv("GROUP_WORLD_SIZE", raising=False)
    if nodes is not None:
        monkeypatch.setenv("GROUP_WORLD_SIZE", nodes)
    assert several_machines() is several


@pytest.mark.parametrize("several", [True, False])
def test_an_error_before_the_training_is_told_on_several_machines_only(
    several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(module, "several_machines", lambda: several)
    monkeypatch.setattr(module, "machine_store", lambda: MachineStore(store, 0, 1, WAIT))
    with pytest.raises(BadUseError, match="no such student"), stop_together():
        raise BadUseError("no such student")
    assert store.check([f"{INPUTS}/0"]) is several
