from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.mjpeg_page import ALL, MjpegPage


@pytest.fixture
def page() -> Iterator[MjpegPage]:
    with MjpegPage(["front door", "<b>"], lambda: "hamr_edge_waiting_crops 0\n", port=0) as page:
        yield page


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def grey(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


class Stream:
    """A client of a stream."""

    def __init__(self, page: MjpegPage, path: str) -> None:
        host, port = page.url.removeprefix("http://").rstrip("/").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()

    def read(self) -> np.ndarray:
        assert self.response.readline() == b"--frame\r\n"
        assert self.response.readline() == b"Content-Type: image/jpeg\r\n"
        length = int(self.response.readline().split(b":")[1])
        assert self.response.readline() == b"\r\n"
        jpeg = self.response.read(length)
        assert self.response.read(2) == b"\r\n"
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_pages(page: MjpegPage) -> None:
    with urlopen(page.url) as answer:
        text = answer.read().decode()
    assert 'src="/stream.mjpg"' in text
    assert 'href="/view/front%20door"' in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    with urlopen(page.url + "view/front%20door") as answer:
        assert 'src="/camera/front%20door.mjpg"' in answer.read().decode()
    with urlopen(page.url + "metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert answer.read() == b"hamr_edge_waiting_crops 0\n"
    with urlopen(page.url + "healthz") as answer:
        assert answer.read() == b"ok\n"
    for path in ("nothing", "view/nobody", "camera/nobody.mjpg", "../../etc/passwd"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(page.url + path)


def test_health_says_why_the_service_does_not_work() -> None:
    trouble = ["no camera runs; büro: failed"]
    with MjpegPage(["a"], str, port=0, trouble=lambda: trouble[0]) as page:
        with pytest.raises(HTTPError, match="503") as raised:
            urlopen(page.url + "healthz")
        assert raised.value.read().decode() == "no camera runs; büro: failed\n"
        raised.value.close()
        trouble[0] = ""
        with urlopen(page.url + "healthz") as answer:
            assert answer.read() == b"ok\n"


def test_a_client_gets_the_newest_picture_and_each_once(page: MjpegPage) -> None:
    assert not page.is_watched
    page.show(ALL, grey(10))
    stream = Stream(page, "/stream.mjpg")
    assert abs(int(stream.read().mean()) - 10) < 3
    assert page.is_watched
    for value in (100, 200):
        page.show(ALL, grey(value))
        assert abs(int(stream.read().mean()) - value) < 3
    one = Stream(page, "/camera/front%20door.mjpg")
    page.show("front door", grey(50))
    assert abs(int(one.read().mean()) - 50) < 3
    for client in (stream, one):
        client.response.close()
        client.connection.close()
    page.show(ALL, grey(1))
    page.show(ALL, grey(2))
    wait_for(lambda: (page.show(ALL, grey(3)), page.show("front door", grey(3)), not page.is_watched)[2])


def test_a_client_that_does_not_read_holds_up_nobody(page: MjpegPage) -> None:
    host, port = page.url.removeprefix("http://").rstrip("/").split(":")
    lazy = socket.create_connection((host, int(port)))
    lazy.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: page.is_watched)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    started = time.monotonic()
    for _ in range(50):
        page.show(ALL, noise)
    assert time.monotonic() - started < 5
    quick = Stream(page, "/stream.mjpg")
    assert quick.read().shape == (480, 640, 3)
    lazy.close()
    quick.connection.close()


@pytest.mark.parametrize("has_a_picture", [True, False])
def test_clients_that_left_a_camera_without_pictures_give_their_places_back(
    page: MjpegPage, monkeypatch: pytest.MonkeyPatch, has_a_picture: bool
) -> None:
    monkeypatch.setattr("hamr_edge.mjpeg_page._HEARTBEAT_S", 0.05)
    if has_a_picture:
        page.show("front door", grey(50))
    for _ in range(16):
        with socket.create_connection(("127.0.0.1", page.port)) as client:
            client.sendall(b"GET /camera/front%20door.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
    wait_for(lambda: not page.is_watched)
    page.show("<b>", grey(100))
    live = Stream(page, "/camera/%3Cb%3E.mjpg")
    assert abs(int(live.read().mean()) - 100) < 3
    live.connection.close()


def test_a_client_of_a_silent_camera_gets_the_last_picture_again(
    page: MjpegPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.mjpeg_page._HEARTBEAT_S", 0.05)
    stream = Stream(page, "/camera/front%20door.mjpg")
    assert stream.read().shape == (292, 480, 3)  # says that there is none yet
    page.show("front door", grey(50))
    wait_for(lambda: stream.read().shape == (48, 64, 3))
    for _ in range(3):
        assert abs(int(stream.read().mean()) - 50) < 3
    stream.connection.close()


def test_a_picture_is_encoded_once_for_all_clients(page: MjpegPage, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: (encoded.append(1), encode(*args))[1])
    for value in range(5):
        page.show(ALL, grey(value))
    assert encoded == []  # nobody looked
    first, second = page.next_jpeg(ALL, 0), page.next_jpeg(ALL, 0)
    assert first == second
    assert len(encoded) == 1


def test_closing_lets_clients_go() -> None:
    with MjpegPage(["a"], lambda: "", port=0) as page:
        stream = Stream(page, "/camera/a.mjpg")
        ended = threading.Event()
        reader = threading.Thread(target=lambda: (stream.response.read(), ended.set()))
        reader.start()
        wait_for(lambda: page.is_watched)
    assert ended.wait(10)
    reader.join(10)
    stream.connection.close()


def test_who_comes_after_the_last_client_left_sees_no_old_picture(page: MjpegPage) -> None:
    assert page.enter()
    page.show(ALL, grey(1))
    assert page.has_picture(ALL)
    page.leave()
    assert not page.has_picture(ALL)
    page.show(ALL, grey(200))
    stream = Stream(page, "/stream.mjpg")
    assert abs(int(stream.read().mean()) - 200) < 3
    stream.connection.close()


def test_too_many_clients_are_told(page: MjpegPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamr_edge.mjpeg_page._MOST_CLIENTS", 1)
    assert page.enter()
    with pytest.raises(HTTPError, match="503"):
        urlopen(page.url + "stream.mjpg")
    page.leave()
    assert not page.is_watched


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example:8080", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_a_local_page_answers_only_to_a_local_name(page: MjpegPage, host: str, status: int) -> None:
    for path in ("/", "/metrics", "/stream.mjpg"):
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        page.show(ALL, grey(1))
        connection.request("GET", path, headers={"Host": host})
        with connection.getresponse() as answer:
            assert answer.status == status
        connection.close()


def test_a_page_for_others_answers_to_any_name() -> None:
    with MjpegPage(["a"], str, host="0.0.0.0", port=0) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        connection.request("GET", "/", headers={"Host": "cameras.example"})
        with connection.getresponse() as answer:
            assert answer.status == 200
        connection.close()


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_a_page_on_ipv6() -> None:
    with MjpegPage(["a"], str, host="::1", port=0) as page:
        assert page.url.startswith("http://[::1]:")
        with urlopen(page.url + "healthz") as answer:
            assert answer.read() == b"ok\n"


def test_a_port_that_is_taken_is_said(page: MjpegPage) -> None:
    port = int(page.url.rsplit(":", 1)[1].rstrip("/"))
    with pytest.raises(UnavailableError, match=r"--http"), MjpegPage([], lambda: "", port=port):
        pass
    with pytest.raises(InputError, match="65535"):
        MjpegPage([], lambda: "", port=70000)
