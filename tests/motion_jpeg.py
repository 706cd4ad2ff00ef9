"""A real camera on the network, as far as OpenCV can tell: Motion JPEG over HTTP on this machine."""

from __future__ import annotations

import http.server
import itertools
import threading
from types import TracebackType

import cv2

from tests.video_files import moving_square


class MotionJpegServer:
    """Serves twelve frames over and over; a context manager.

    Args:
        port: The port to listen at; any free one when 0.
        frames: Frames of one connection, which then ends; endless when None.
        hangs: After the frames the connection stays open and silent.
    """

    def __init__(self, port: int = 0, frames: int | None = None, hangs: bool = False) -> None:
        self.connections = 0
        self._stopping = threading.Event()
        jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in moving_square(12)]
        camera, stopping = self, self._stopping

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    for jpeg in itertools.islice(itertools.cycle(jpegs), frames):
                        head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                        self.wfile.write(head + jpeg + b"\r\n")
                        if stopping.wait(0.002):
                            return
                    if hangs:
                        stopping.wait()
                except OSError:  # the reader hung up
                    pass

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Of the stream."""
        return f"http://127.0.0.1:{self.port}/camera"

    def __enter__(self) -> MotionJpegServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
