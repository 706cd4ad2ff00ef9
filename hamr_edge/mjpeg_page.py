"""A page with moving pictures (MJPEG over HTTP) and the service's metrics, for one machine or a trusted network."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.mosaic import make_mosaic
from hamr_edge.openable import Openable

_log = logging.getLogger(__name__)
_BOUNDARY = "frame"
_QUALITY = 80
_MOST_CLIENTS = 16
"""Of all cameras together: each is a thread. One camera cannot keep the places: who has left it is noticed."""
_HEARTBEAT_S = 2.0
"""A client that went away is noticed only when something is sent."""
_CLIENT_TIMEOUT_S = 10.0
_POLL_S = 0.1
"""How long closing may have to wait for the server."""
ALL = ""
"""The name of the picture of all cameras."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hamr-edge watch</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; padding: 1rem; font: 15px/1.5 system-ui, sans-serif; }}
img {{ display: block; max-width: 100%; height: auto; border-radius: 6px; background: #181818; }}
nav a {{ margin-right: 1rem; }}
</style></head><body>
<nav>{links}</nav>
<p><img src="{source}" alt="{alt}"></p>
</body></html>
"""


class MjpegPage(Openable):
    """Serves the newest picture of each camera. A context manager.

    ``/`` all cameras, ``/view/NAME`` one, ``/stream.mjpg`` and ``/camera/NAME.mjpg`` the streams alone, ``/metrics``
    Prometheus text, ``/healthz`` ``ok``, or status 503 and a line that says why.

    There is no encryption and no password: other hosts than this one see people. On one of :data:`LOCAL_HOSTS` it
    answers only requests that name one: a web page elsewhere, whose name was made to point to this machine (DNS
    rebinding), sees nothing.

    A client that is slow gets fewer pictures and holds up nobody. A picture is made a JPEG once, and only when somebody
    looks. Where no new picture comes, the last one is sent again every two seconds: a client that left gives its place
    back, also one of a camera that died or never gave a picture.

    Args:
        cameras: Names.
        metrics: Gives the text of ``/metrics``; called from the server's threads.
        host: Where to listen; 127.0.0.1 is this machine only. IPv6 addresses have no brackets here.
        port: 0 takes a free one.
        trouble: Says why the service does not work, empty where it does; called from the server's threads.

    Raises:
        UnavailableError: The port is taken or the host is not this machine's.
    """

    def __init__(
        self,
        cameras: list[str],
        metrics: Callable[[], str],
        host: str = "127.0.0.1",
        port: int = 8080,
        trouble: Callable[[], str] = str,
    ) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"port must be 0 to 65535, got {port}")
        self.cameras, self.metrics, self.trouble = cameras, metrics, trouble
        self.host, self._port = host, port
        self._changed = threading.Condition()
        self._pictures: dict[str, tuple[int, NDArray[np.uint8]]] = {}
        self._encoded: dict[str, tuple[int, bytes]] = {}
        self._clients = 0
        self._closed = False
        self._server: ThreadingHTTPServer | None = None

    def open(self) -> None:
        """Listen."""
        if self._server is not None:
            return
        page = self

        class Handler(_Handler):
            owner = page

        try:
            # An IPv6 address has colons; a name is looked up as IPv4.
            server_class = _ServerV6 if ":" in self.host else _Server
            self._server = server_class((self.host, self._port), Handler)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self.host}:{self._port}: {error.strerror or error}; name another with --http "
                "[HOST:]PORT, 0 for a free port"
            ) from error
        threading.Thread(target=self._server.serve_forever, args=[_POLL_S], name="page", daemon=True).start()

    def close(self) -> None:
        """Let every client go and stop listening."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def port(self) -> int:
        """Where it listens; 0 before it is open, where any was asked for."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://[{self.host}]:{self.port}/" if ":" in self.host else f"http://{self.host}:{self.port}/"

    def serves(self, host_header: str) -> bool:
        """Whether a request with this ``Host`` header may see the page."""
        if self.host not in LOCAL_HOSTS:
            return True
        try:
            return urlsplit(f"//{host_header}").hostname in LOCAL_HOSTS
        except ValueError:  # no host at all
            return False

    @property
    def is_watched(self) -> bool:
        """Whether a client wants pictures: without one, none need be drawn."""
        with self._changed:
            return self._clients > 0

    def has_picture(self, name: str) -> bool:
        """Whether a client that comes now sees a picture of a camera at once."""
        with self._changed:
            return name in self._pictures

    def show(self, name: str, picture: NDArray[np.uint8]) -> None:
        """Make a (H, W, 3) uint8 BGR picture the newest of a camera, or of :data:`ALL`; it must not change later."""
        with self._changed:
            number = self._pictures.get(name, (0, picture))[0] + 1
            self._pictures[name] = (number, picture)
            self._changed.notify_all()

    def enter(self) -> bool:
        """Count a client in; False when there are too many."""
        with self._changed:
            if self._clients >= _MOST_CLIENTS:
                return False
            self._clients += 1
            return True

    def leave(self) -> None:
        """Count a client out; when the last one goes, so do the pictures: the next is not to begin with old ones."""
        with self._changed:
            self._clients -= 1
            if not self._clients:
                self._pictures.clear()
                self._encoded.clear()

    def next_jpeg(self, name: str, after: int) -> tuple[int, bytes] | None:
        """Wait for a picture newer than number ``after``: its number and JPEG; None once the page is closed.

        Where none comes within two seconds, it is the last one again; before the first, number 0, which says so.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._pictures.get(name, (0, None))[0] > after, timeout=_HEARTBEAT_S
            )
            if self._closed:
                return None
            number, picture = self._pictures.get(name, (0, None))
            known = self._encoded.get(name)
        if known is not None and known[0] == number:
            return known
        if picture is None:
            picture = make_mosaic({name: None}, {name: f"{name or 'all cameras'}   no picture yet"})
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        with self._changed:
            self._encoded[name] = (number, jpeg)
        return number, jpeg

    def html(self, name: str) -> str:
        """The page of one camera, or of all."""
        links = [("all", "/"), *((camera, f"/view/{quote(camera, safe='')}") for camera in self.cameras)]
        source = "/stream.mjpg" if name == ALL else f"/camera/{quote(name, safe='')}.mjpg"
        words = "".join(f'<a href="{target}">{escape(text)}</a>' for text, target in links)
        return _PAGE.format(links=words, source=source, alt=escape(name or "all cameras"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that goes away in the middle is no news."""
        _log.debug("%s went away", client_address)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    owner: MjpegPage
    timeout = _CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        """Answer one request."""
        path = unquote(urlsplit(self.path).path)
        if not self.owner.serves(self.headers.get("Host", "")):
            self.send_error(403, "this page is for this machine; its address is localhost")
        elif path == "/":
            self._send("text/html; charset=utf-8", self.owner.html(ALL))
        elif path == "/stream.mjpg":
            self._stream(ALL)
        elif path == "/metrics":
            self._send("text/plain; version=0.0.4; charset=utf-8", self.owner.metrics())
        elif path == "/healthz":
            trouble = self.owner.trouble()
            self._send("text/plain; charset=utf-8", f"{trouble or 'ok'}\n", 503 if trouble else 200)
        elif path.startswith("/view/") and path[6:] in self.owner.cameras:
            self._send("text/html; charset=utf-8", self.owner.html(path[6:]))
        elif path.startswith("/camera/") and path.endswith(".mjpg") and path[8:-5] in self.owner.cameras:
            self._stream(path[8:-5])
        else:
            self.send_error(404, "there is no such page")

    def _send(self, kind: str, text: str, status: int = 200) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, name: str) -> None:
        if not self.owner.enter():
            self.send_error(503, "too many clients")
            return
        try:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            number = 0
            while (picture := self.owner.next_jpeg(name, number)) is not None:
                number, jpeg = picture
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:  # gone, or too slow for a whole time-out
            self.close_connection = True
        finally:
            self.owner.leave()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""
        _log.debug(format, *args)
