"""Prepare a data set in children that are killed at random moments, until one comes through; print the kills.

    python -m tests.prepare.killing SOURCE OUT SEED

A process of its own: it forks, which one that has run tests and threads should not.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from ds2d2_yolo.prepare.run import prepare

MOST = 12


def main(source: str, out: str, seed: int) -> None:
    """Kill up to 12 children, the later ones later, then let one finish."""
    chance = random.Random(seed)
    kills = 0
    while True:
        child = os.fork()
        if not child:
            prepare("dota", source=source, out=out, crop_size=128, gap=32)
            os._exit(0)
        if kills < MOST:
            time.sleep(chance.uniform(0, 0.03 * (1 + kills)))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(f"kills={kills} status={status}")
            return
        kills += 1


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
