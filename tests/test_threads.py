"""How threads wait is chosen from what others use of the processors, never against the user, and changes no value."""

import os
import subprocess
import sys
import time

import pytest
import torch

from mmbench.core import threads

SHOW = """
import os, sys
from mmbench.core import threads
threads.others = lambda: {others}
threads.choose_waiting()
import torch
print(sum(torch.linspace(-1, 1, 100003).sin().reshape(1, -1).double().flatten().tolist()))
print(*(os.environ.get(name) for name in threads.WAITING))
"""


@pytest.mark.parametrize(
    ("others", "chosen"), [(0.0, {"GOMP_SPINCOUNT": "10000"}), (1.0, {"OMP_WAIT_POLICY": "passive"})]
)
def test_waiting_follows_what_others_use(monkeypatch, others, chosen):
    monkeypatch.setattr(threads, "others", lambda: others)
    environment: dict[str, str] = {}
    threads.choose_waiting(environment)
    assert environment == chosen


@pytest.mark.parametrize("name", [*threads.WAITING, "OMP_NUM_THREADS"])
def test_what_the_user_has_set_is_left(monkeypatch, name):
    monkeypatch.setattr(threads, "others", lambda: pytest.fail("measured, though the user has chosen"))
    environment = {name: "1"}
    threads.choose_waiting(environment)
    assert environment == {name: "1"}


def test_more_threads_of_the_user_are_kept_and_their_waiting_is_chosen(monkeypatch):
    monkeypatch.setattr(threads, "others", lambda: 1.0)
    environment = {"OMP_NUM_THREADS": "4"}
    threads.choose_waiting(environment)
    assert environment == {"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}


def test_what_others_use_is_not_what_this_process_uses():
    began = time.process_time()
    assert 0 <= threads.others() <= os.cpu_count()
    assert time.process_time() - began < threads.SECONDS / 2  # it sleeps


def test_values_do_not_depend_on_how_threads_wait():
    environment = {name: value for name, value in os.environ.items() if name not in threads.WAITING}
    environment["OMP_NUM_THREADS"] = "2"
    said = [
        subprocess.run(
            [sys.executable, "-c", SHOW.format(others=others)],
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        ).stdout.split("\n")
        for others in (0.0, 1.0)
    ]
    assert said[0][0] == said[1][0]
    assert (said[0][1], said[1][1]) == ("None 10000 None", "passive None None")


class Clock:
    """A clock on which a look takes as long as the number of threads says."""

    def __init__(self, cost):
        self.now, self.cost = 0.0, cost

    def __call__(self):
        self.now += self.cost[torch.get_num_threads()]
        return self.now


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cost", "said"), [({1: 1.0, 2: 3.0}, "3.0 times as fast as 2"), ({1: 1.0, 2: 0.6}, None)])
def test_one_thread_is_advised_where_it_would_be_faster(monkeypatch, two_threads, cost, said):
    monkeypatch.setattr(threads.time, "perf_counter", Clock(cost))
    state = torch.get_rng_state()
    sentence = threads.advice()
    assert sentence is None if said is None else said in sentence
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_advised_to_a_single_thread(monkeypatch, two_threads):
    torch.set_num_threads(1)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: pytest.fail("measured one thread against itself"))
    assert threads.advice() is None
