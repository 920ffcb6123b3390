"""Threads on processors that other programs use too: how they wait for each other, and whether fewer would be faster.

A thread of OpenMP that waits for the others spins. Where another program has one of the processors, the thread that all
wait for does not run, and those that wait take the time in which it could. Values depend on the number of threads (sums
are rounded in another order) and not on how they wait: so their number stays what the user or PyTorch chose, and only
how they wait is chosen here, by measurement.
"""

import os
import statistics
import time
from collections.abc import MutableMapping

import psutil

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # environment by which a user chooses it
SECONDS = 0.1  # that other programs are watched for
BUSY = 0.25  # processors that others use, from which on a waiting thread gives its own up
SHORT_SPIN = "10000"  # costs nothing on idle processors, and frees some where others come later
ROUNDS, STEPS = 3, 5  # of the probe: odd, so that one disturbance decides nothing
FASTER = 1.2  # how much faster one thread must be to be spoken of


def choose_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Chooses how OpenMP's threads wait, from what other programs use of the processors now.

    It must come before PyTorch is imported, which reads the environment once. What the user has set, or a single
    thread, is left as it is.
    """
    if environment.get("OMP_NUM_THREADS") == "1" or any(name in environment for name in WAITING):
        return
    if others() >= BUSY:
        environment["OMP_WAIT_POLICY"] = "passive"
    else:
        environment["GOMP_SPINCOUNT"] = SHORT_SPIN


def others() -> float:
    """How many processors other programs use, measured while this one sleeps."""
    return sum(psutil.cpu_percent(SECONDS, percpu=True)) / 100


def advice() -> str | None:
    """One sentence where one thread would now be faster than those of this process; None where not.

    A convolution forwards and backwards, some hundredths of a second on idle processors. No random number is drawn, and
    the number of threads is what it was.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1:
        return None
    images, weights = torch.ones(16, 16, 32, 32), torch.ones(16, 16, 3, 3, requires_grad=True)
    seconds: dict[int, list[float]] = {threads: [], 1: []}
    try:
        for _ in range(ROUNDS):
            for number, taken in seconds.items():
                torch.set_num_threads(number)
                start = time.perf_counter()
                for _ in range(STEPS):
                    torch.nn.functional.conv2d(images, weights, padding=1).sum().backward()
                taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    ratio = statistics.median(seconds[threads]) / statistics.median(seconds[1])
    if ratio < FASTER:
        return None
    return (
        f"other programs use the processors: one thread would now be {ratio:.1f} times as fast as {threads} "
        "(OMP_NUM_THREADS=1; what is learned then differs by rounding)"
    )
