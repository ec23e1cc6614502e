"""Files are written whole or not at all, and what a kill left goes with the next write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ds2d2_yolo.utils.atomic_files import replacing, temporary_of, write_atomically, write_json


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_atomically(file, "old\n")

    def fail() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half a", encoding="utf-8")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert file.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "a[1].json"  # brackets are a pattern to glob
    code = """import os, sys; from pathlib import Path; from ds2d2_yolo.utils.atomic_files import replacing
with replacing(Path(sys.argv[1])) as temporary: temporary.write_text("half a"); os.kill(os.getpid(), 9)"""
    subprocess.run([sys.executable, "-c", code, str(file)], check=False, cwd=Path(__file__).parents[2])
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a[1].json.")
    alive = left.with_name(left.name.replace(left.name.rpartition("-")[2], f"{os.getpid()}.tmp"))
    alive.write_text("half a", encoding="utf-8")  # of a process that is still at it
    assert temporary_of(file).name.startswith(".a[1].json.")
    assert list(tmp_path.iterdir()) == [alive]
    write_json(file, {})
    assert list(tmp_path.iterdir()) == [file]
