from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hamr_edge.camera_flags import name_cameras
from hamr_edge.video import hide_password, open_source

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
IN_A_QUERY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="&"), min_size=1).filter(
    lambda text: "_channel=" not in text and "_stream=" not in text
)
WORD = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="\"'"), min_size=1)
PATH = st.text("abcxyz019/_-.=&?", max_size=30).filter(
    lambda text: not any(word in text for word in ("pass", "pw", "auth", "key", "sig", "token"))
)


@given(secret=ANY)
@example("pa/ss")
@example("12/34")
@example("se@cret")
@example("a:b")
@example("with space")
def test_a_password_before_the_host_is_hidden_whatever_it_is(secret: str) -> None:
    for user in ("me", "", "me@mail.example"):
        assert hide_password(f"rtsp://{user}:{secret}@10.0.0.1:554/x") == f"rtsp://{user}:***@10.0.0.1:554/x"
    pipeline = "gst:rtspsrc location=rtsp://me:{} ! rtph264depay"
    assert hide_password(pipeline.format(f"{secret}@10.0.0.1/x")) == pipeline.format("***@10.0.0.1/x")


@given(secret=IN_A_QUERY)
@example("a_b=c")
@example("a b!c#d")
def test_a_secret_in_the_query_is_hidden_whatever_it_is(secret: str) -> None:
    for name in ("password", "pwd", "loginpas", "token", "access_token", "Password", "user_pass", "auth", "apiKey"):
        for url in ("http://10.0.0.1/x?{}={}", "http://10.0.0.1/x?user=me&{}={}&channel=1"):
            assert hide_password(url.format(name, secret)) == url.format(name, "***")
    xmeye = "rtsp://10.0.0.1:554/user=admin_password={}_channel=1_stream=0.sdp?real_stream"
    assert hide_password(xmeye.format(secret)) == xmeye.format("***")


@given(secret=WORD)
def test_a_secret_of_a_pipeline_is_hidden(secret: str) -> None:
    pipeline = "gst:rtspsrc location=rtsp://10.0.0.1/x user-id=me user-pw={} latency=200 ! rtph264depay"
    assert hide_password(pipeline.format(secret)) == pipeline.format("***")
    assert hide_password(pipeline.format(f'"{secret} and more"')) == pipeline.format("***")


@given(
    path=PATH, host=st.sampled_from(["10.0.0.1", "10.0.0.1:554", "cam1", "cam1:8080", "[fe80::1]:554", "localhost:80"])
)
def test_text_without_a_secret_is_unchanged(path: str, host: str) -> None:
    for plain in (
        f"rtsp://{host}/{path}",
        f"rtsp://me@{host}/{path}",
        path,
        f"gst:rtspsrc location=rtsp://{host}/{path}",
    ):
        assert hide_password(plain) == plain


@pytest.mark.parametrize(
    "plain",
    [
        "http://10.0.0.1:8080/a@b:c",
        "rtsp://localhost:554/a@b",
        "rtsp://10.0.0.1/a:b@c",
        "rtsp://[fe80::1]:554/a@b",
        "folder/video.mp4",
        "folder/password=x.mp4",
        "rtsp://10.0.0.1:554/user=admin_password=_channel=1_stream=0.sdp",
        "http://10.0.0.1/x?password=&channel=1&bypass=1",
    ],
)
def test_what_only_looks_like_a_secret_is_unchanged(plain: str) -> None:
    assert hide_password(plain) == plain


def test_sources_and_cameras_have_no_passwords_in_their_names() -> None:
    assert open_source("rtsp://me:secret@10.0.0.1/x").name == "rtsp://me:***@10.0.0.1/x"
    assert hide_password("rtspsrc user-id=me user-pw=secret ! x") == "rtspsrc user-id=me user-pw=*** ! x"
    assert name_cameras(["rtsp://me@mail.example:pa/ss@10.0.0.1/main"]) == ["10.0.0.1/main"]
