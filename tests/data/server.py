"""A web server on this machine that can do what servers of data sets do to a download."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request: its path, the `Range` it named, and how many bytes of a file went out."""

    path: str
    range: str | None
    sent: int


class Server:
    """Files by path, and how they are sent.

    Attributes:
        files: path (`/name`) to the bytes.
        types: path to its Content-Type; that of bytes where it has none.
        cut: path to the place in the file at which the connection is closed.
        stalled: paths that send nothing more at that place, and do not close the connection either.
        ranges: whether parts of files are sent.
        validators: whether an ETag is sent.
        asked: what was asked for, in order.
        released: set when stalled requests are to end.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.stalled: set[str] = set()
        self.ranges = self.validators = True
        self.asked: list[Asked] = []
        self.released = threading.Event()

    def publish(self, folder) -> None:
        """Serves the files of a folder."""
        self.files |= {
            f"/{path.name}": path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".receipt.json")
        }

    def sent(self, path: str) -> int:
        return sum(asked.sent for asked in self.asked if asked.path == path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def do_GET(self):
        path = self.path.partition("?")[0]
        served, content = self.served, self.served.files.get(path)
        if content is None:
            served.asked.append(Asked(self.path, self.headers["Range"], 0))
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if self.headers["Range"] and served.ranges and self.headers["If-Range"] in (None, etag):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", served.types.get(path, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content) - start))
        if served.validators:
            self.send_header("ETag", etag)
        if "text/html" not in served.types.get(path, ""):
            self.send_header("Content-Disposition", f'attachment; filename="{path.strip("/")}"')
        self.end_headers()
        end = served.cut.get(path, len(content))
        served.asked.append(Asked(self.path, self.headers["Range"], max(0, end - start)))
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if path in served.stalled:
            served.released.wait(60)
        self.close_connection = self.close_connection or end < len(content)

    def log_message(self, *args):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server until the block ends."""
    handler = type("Serving", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda *request: None  # clients that went away are what is tested
        handler.served = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield handler.served
        handler.served.released.set()
        http.shutdown()
        thread.join()
