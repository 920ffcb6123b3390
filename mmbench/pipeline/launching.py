"""Launching: many jobs over an engine that others keep, joblib, Slurm (by submitit) or Ray, as Hydra's launchers do.

`hydra/launcher=NAME` says which engine and with what settings, for a table's rows as for a sweep (`--multirun`), whose
jobs Hydra's own plugin hands out. A plugin gives all results at once, and none where one process was killed; here each
is given when its job ends, and who was killed is told from who was not.
"""

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmbench.core import application, catalogue, composition, quiet, threads

POLL = 2.0  # seconds between two looks at jobs of Slurm


@dataclass(frozen=True)
class Ended:
    """A job that ended.

    Attributes:
        index: which one.
        result: what its function returned.
        died: where it did not return: why, as far as the engine knows; "" where it did.
        log: file that says more of that; "" where there is none.
    """

    index: int
    result: Any = None
    died: str = ""
    log: str = ""


@dataclass(frozen=True)
class Work:
    """A job: a function with its argument, for a process of its own.

    Attributes:
        content: both, pickled: they are read when what the process prints goes to its log already.
        log: file of what it prints.
        folder: the working directory.
        mark: a file that is there as long as the function is at work.
    """

    content: bytes
    log: Path
    folder: str
    mark: Path

    @classmethod
    def of(cls, function: Callable[[Any], Any], argument: Any, log: Path, mark: Path) -> "Work":
        return cls(pickle.dumps((function, argument)), log.absolute(), str(Path.cwd()), mark)

    def __call__(self) -> Any:
        os.chdir(self.folder)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        sys.stdout.flush()
        sys.stderr.flush()
        before = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in before:
                os.dup2(handle, stream)
            quiet.quieten()
            threads.choose_waiting()
            function, argument = pickle.loads(self.content)
            return function(argument)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, kept in before.items():
                os.dup2(kept, stream)
                os.close(kept)
            os.close(handle)

    def checkpoint(self) -> Any:
        """What Slurm is to run in the place of a job that it stopped: the same, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def launched(works: Sequence[Work], launcher: Mapping[str, Any]) -> Iterator[Ended]:
    """Runs jobs over the engine of a launcher; yields each when it ends, in any order.

    Args:
        launcher: its settings, as `chosen` gives them.

    Raises:
        ValueError: the engine does not take the settings, or is not there.
    """
    settings = {key: item for key, item in launcher.items() if key != "_target_"}
    yield from _engine(launcher)(works, settings)


def chosen(words: Sequence[str]) -> dict[str, Any] | None:
    """The settings of the launcher that a command line chooses; None where it is Hydra's own, one job after the other.

    Args:
        words: those of Hydra (`hydra/launcher=joblib`, `hydra.launcher.n_jobs=2`), and `paths.`.

    Raises:
        ValueError: there is no such launcher, its package is not installed, or it is none that rows can be given to.
    """
    application.require_packages(words)
    found = composition.launcher(words)
    if found["_target_"].endswith(".BasicLauncher"):
        return None
    _engine(found)
    return found


def _engine(launcher: Mapping[str, Any]) -> Callable[[Sequence[Work], dict[str, Any]], Iterator[Ended]]:
    name = launcher["_target_"].rpartition(".")[2]
    if name not in ENGINES:
        catalogue.unknown("launcher for the rows of a table", name, ENGINES)
    return ENGINES[name]


def _by_joblib(works: Sequence[Work], settings: dict[str, Any]) -> Iterator[Ended]:
    """Over processes of this machine; where one is killed, joblib ends the others too, and they begin again.

    Those that were at work are then run one at a time, so that the one that cannot be is told from the others.
    """
    from joblib.externals.loky.process_executor import BrokenProcessPool

    left = dict(enumerate(works))
    while left:
        try:
            for ended in _parallel(dict(left), settings):
                del left[ended.index]
                yield ended
        except BrokenProcessPool:
            started = [index for index, work in left.items() if work.mark.exists()]
            for index in started or [next(iter(left))]:
                try:
                    yield from _parallel({index: left[index]}, settings)
                except BrokenProcessPool:
                    yield Ended(index, died="its process was killed, twice")
                del left[index]


def _parallel(works: Mapping[int, Work], settings: Mapping[str, Any]) -> Iterator[Ended]:
    from joblib import Parallel, delayed

    numbered = (delayed(_numbered)(index, work) for index, work in works.items())
    yield from Parallel(**{**settings, "backend": "loky"}, return_as="generator_unordered")(numbered)


def _numbered(index: int, work: Work) -> Ended:
    return Ended(index, work())


def _by_submitit(cluster: str, works: Sequence[Work], settings: dict[str, Any]) -> Iterator[Ended]:
    """Over Slurm, or processes of this machine in its place."""
    import submitit
    from submitit.helpers import as_completed

    folder, shared = settings.pop("submitit_folder"), submitit.AutoExecutor._valid_parameters()
    named = {key if key in shared else f"{cluster}_{key}": item for key, item in settings.items()}
    made_with = {key: named.pop(key) for key in [f"{cluster}_max_num_timeout"] if key in named}
    executor = submitit.AutoExecutor(folder, cluster=cluster, **made_with)
    executor.update_parameters(**named)
    with executor.batch():
        jobs = [executor.submit(work) for work in works]
    numbers = {job.job_id: index for index, job in enumerate(jobs)}
    for job in as_completed(jobs, poll_frequency=POLL):
        index = numbers[job.job_id]
        error = job.exception()
        if error is None:
            yield Ended(index, job.result())
        else:
            yield Ended(index, died=_first_line(error), log=str(job.paths.stderr))


def _by_ray(works: Sequence[Work], settings: dict[str, Any]) -> Iterator[Ended]:
    """Over Ray: a cluster that is there (`hydra.launcher.ray.init.address=auto`), or one that is made for it here."""
    import ray
    from ray.exceptions import RayError

    options = settings["ray"]
    ray.init(**{"log_to_driver": False, **options["init"]})
    try:
        remote = ray.remote(**options["remote"])(_call) if options["remote"] else ray.remote(_call)
        waiting = {remote.remote(work): index for index, work in enumerate(works)}
        while waiting:
            [done], _ = ray.wait(list(waiting))
            index = waiting.pop(done)
            try:
                yield Ended(index, ray.get(done))
            except RayError as error:
                yield Ended(index, died=_first_line(error))
    finally:
        ray.shutdown()


def _call(work: Work) -> Any:
    return work()


ENGINES: Mapping[str, Callable[[Sequence[Work], dict[str, Any]], Iterator[Ended]]] = {  # by class of Hydra's launcher
    "JoblibLauncher": _by_joblib,
    "SlurmLauncher": partial(_by_submitit, "slurm"),
    "LocalLauncher": partial(_by_submitit, "local"),
    "RayLauncher": _by_ray,
}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
