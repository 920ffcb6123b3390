"""Fetching one file over http(s) or from Google Drive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gdown
import pooch
import requests
from gdown.exceptions import DownloadError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

SCHEMES = ("http://", "https://", "gdrive:")


def download(origin: str, path: Path) -> None:
    """Fetches `origin`, an http(s) URL or `gdrive:<id>`, to `path`; a bar on a terminal shows how far it is.

    Raises:
        OSError: there is no connection or no such file, or what came is a web page (Google Drive answers so when a
            file's quota is used up; a login page of a network does too). The file at `path` is then of no use.
    """
    with _bar(path.name) as bar:
        try:
            if origin.startswith("gdrive:"):
                gdown.download(
                    id=origin.removeprefix("gdrive:"),
                    output=str(path),
                    quiet=True,
                    use_cookies=False,
                    timeout=30,
                    progress=bar.report,
                )
            else:
                # The downloader asks its third argument, a registry, for nothing.
                pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20)(origin, str(path), None)
        except (requests.RequestException, DownloadError) as error:
            raise OSError(" ".join(str(error).split())) from None
    with path.open("rb") as file:
        if file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise OSError("a web page came instead of the file, as when a quota is used up or a login is asked for")


class _Bar:
    """A bar of rich's in the words that pooch (total, update, reset, close) and gdown (report) use."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress = progress
        self.task = progress.add_task(f"fetching {name}", total=None)
        self.total = 0

    def update(self, count: int) -> None:
        self.progress.update(self.task, advance=count, total=self.total or None)

    def reset(self) -> None:
        self.progress.reset(self.task)

    def close(self) -> None:
        self.progress.stop_task(self.task)

    def report(self, done: int, total: int | None) -> None:
        self.progress.update(self.task, completed=done, total=total)


@contextmanager
def _bar(name: str) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield _Bar(progress, name)
