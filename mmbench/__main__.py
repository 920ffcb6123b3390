"""The command `mmbench`: `mmbench <command> key=value ...`."""

import errno
import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from mmbench.core import interrupts, quiet

COMMANDS = {
    "train": "train a method on a data set",
    "evaluate": "generate a method's images under a protocol, score them, write a record",
    "score": "score anybody's folder of images",
    "reproduce": "run the rows of a published table and print published beside reproduced",
    "grid": "draw what a method makes of one sample: after several captions, in several draws, where it looks",
    "explain": "say what of the difference of two numbers lies in their protocols",
    "prepare": "fetch or make a data set and check it",
    "status": "say how far the rows of a table are: done, at work, failed, missing",
    "table": "print the table of an experiment from the records that are there",
    "report": "build pages of all tables, claims and published numbers, in a folder without a server",
    "study": "build a blinded page of pictures for people to judge, and score their answers",
    "power": "say what differences a table can show, and how many images and seeds would show a wanted one",
    "lint": "say which printed numbers cannot be",
    "wandb": "build the workspace of an experiment on Weights & Biases",
    "list": "list methods, data sets, protocols, metrics and experiments",
}

LIGHT = ("status", "table", "report", "power", "lint", "wandb", "list")  # compute nothing

HELP = """usage: mmbench COMMAND [key=value ...]

{commands}

Options are key=value in Hydra's grammar; `mmbench COMMAND --help` says which. Every command takes download=yes, which
fetches weights that are not there, download=never, and download=ask (the default: on a terminal it asks, elsewhere it
fetches nothing; size and licence are said first). `train` and `evaluate` are Hydra
applications: method=a,b --multirun sweeps, --cfg job prints the configuration, and
eval "$(mmbench --shell-completion install=bash)" completes names in the shell.

first steps:
  mmbench list
  mmbench evaluate method=identity data=cub data.source=toy
"""


def main() -> None:
    """Entry point of the console script; a user's mistake ends in one line on standard error and exit code 1."""
    if sys.stdout:  # what a terminal's encoding lacks (a dagger, ±) is spelt out
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interrupts.handled():
            quiet.quieten()
            try:
                status = _run(sys.argv[1:])
            finally:
                if sys.stdout:
                    sys.stdout.flush()  # here, where a reader that has left is no error
    except BrokenPipeError:
        if not _reader_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("mmbench: error: expected room for what is written, found none: free some, then again", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more at its end
        status = 1
    except interrupts.Interrupted as error:
        interrupts.say()
        status = error.code
    sys.exit(status)


def _reader_left() -> bool:
    """Whether nobody reads standard output any more, as behind `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        _complete(arguments)
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())), end="")
        return 0
    if arguments[0] in ("--version", "version"):
        from mmbench import __version__

        print(__version__)
        return 0
    try:
        return _command(*arguments)
    except ValueError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"mmbench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _command(command: str, *words: str) -> int:
    if command not in COMMANDS:
        from mmbench.core.catalogue import unknown

        unknown("command", command, COMMANDS)
    module = import_module(f"mmbench.commands.{command}")
    if {"-h", "--help"} & set(words):
        print(module.HELP, end="")
        return 0
    if command not in LIGHT:
        from mmbench.core.threads import choose_waiting

        choose_waiting()
    status: int = module.main(_without_policy(words))
    return status


def _without_policy(words: Sequence[str]) -> list[str]:
    """The words but for `download=`, which says of the whole process whether weights may be fetched."""
    said = [word.removeprefix("download=") for word in words if word.startswith("download=")]
    if not said:
        return list(words)
    from mmbench.core.download import allow

    if len(set(said)) > 1:
        raise ValueError(f"expected download= once, found {' and '.join(said)}: remove one")
    allow(said[0])
    return [word for word in words if not word.startswith("download=")]


def _complete(arguments: list[str]) -> None:
    """Hydra's completion, one level down: the first word is a command, the rest belongs to `conf/run.yaml`."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) <= 2 and arguments[-1].startswith("query="):
        print(" ".join(COMMANDS))
        return
    if len(words) > 2:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    from mmbench.commands.evaluate import job

    sys.argv = [sys.argv[0], *arguments]
    job()


if __name__ == "__main__":
    main()
