from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from hamr_edge import gstreamer
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.gstreamer import complete_pipeline, reads_files
from hamr_edge.reconnect import Reconnect
from hamr_edge.video import Capture, open_source
from tests.video_files import moving_square, square_x, write_video

HAS_GSTREAMER = "GStreamer:                   YES" in cv2.getBuildInformation()
needs_gstreamer = pytest.mark.skipif(
    not HAS_GSTREAMER, reason="this OpenCV was built without GStreamer (the system's python3-opencv has it)"
)


@pytest.mark.parametrize(
    ("source", "pipeline"),
    [
        (
            "gst:v4l2src",
            "v4l2src ! videoconvert ! video/x-raw,format=BGR ! appsink max-buffers=2 sync=false drop=true",
        ),
        ("gst: a ! appsink", "a ! appsink max-buffers=2 sync=false drop=true"),
        ("gst:a ! appsink drop=false", "a ! appsink max-buffers=2 sync=false drop=false"),
        (
            "gst:a ! appsink name=opencvsink max-buffers = 9 sync=true",
            "a ! appsink drop=true name=opencvsink max-buffers = 9 sync=true",
        ),
        (
            "gst:a ! tee name=t ! appsink t. ! queue ! fakesink drop=1",
            "a ! tee name=t ! appsink max-buffers=2 sync=false drop=true t. ! queue ! fakesink drop=1",
        ),
        ("gst:filesrc location=a ! appsink", "filesrc location=a ! appsink max-buffers=2 sync=false drop=false"),
        (
            "gst:x name=appsink !",
            "x name=appsink ! videoconvert ! video/x-raw,format=BGR ! appsink max-buffers=2 sync=false drop=true",
        ),
        (
            "gst:a last-sample=1 ! appsink enable-last-sample=false drop-x=1",
            "a last-sample=1 ! appsink max-buffers=2 sync=false drop=true enable-last-sample=false drop-x=1",
        ),
    ],
)
def test_what_the_end_of_a_pipeline_lacks_is_filled_in(source: str, pipeline: str) -> None:
    assert complete_pipeline(source) == pipeline


def test_pipelines_that_read_files() -> None:
    assert reads_files("filesrc location=x ! decodebin")
    assert reads_files("uridecodebin uri=file:///x")
    assert not reads_files("rtspsrc location=rtsp://filesrc/profile://x name=filesrc")


@pytest.mark.parametrize("source", ["gst:", "gst:  ", "gst: ! "])
def test_no_pipeline(source: str) -> None:
    with pytest.raises(InputError, match="names no pipeline; expected such as"):
        open_source(source)


@pytest.mark.skipif(HAS_GSTREAMER, reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_says_the_way_out() -> None:
    with pytest.raises(UnavailableError, match=r"built without GStreamer.*apt install python3-opencv"):
        open_source("gst:videotestsrc")


def test_an_opencv_with_gstreamer_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    gstreamer._is_built_in.cache_clear()
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  Video I/O:\n    GStreamer:   YES (1.22.0)\n")
    try:
        source = open_source("gst:rtspsrc location=rtsp://me:secret@h/x user-pw=secret ! decodebin")
    finally:
        gstreamer._is_built_in.cache_clear()
    assert source.name == "gst:rtspsrc location=rtsp://me:***@h/x user-pw=*** ! decodebin"


@needs_gstreamer
def test_a_recording_through_a_pipeline_comes_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(17))
    with FrameReader(open_source(f"gst:filesrc location={path} ! decodebin")) as reader:
        frames = list(reader)
        assert not reader.source.is_live
    assert [frame.number for frame in frames] == list(range(1, 18))
    assert [square_x(frame.image) for frame in frames] == pytest.approx([4 * i for i in range(17)], abs=1)
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(1.6, abs=0.11)
    assert frames[0].unix_time_s is None


@needs_gstreamer
def test_a_live_pipeline_is_live_and_opened_again_at_its_end() -> None:
    pipeline = "gst:videotestsrc is-live=true num-buffers=8 ! video/x-raw,width=64,height=48,framerate=50/1"
    with FrameReader(open_source(pipeline), ahead=99, reconnect=Reconnect(0.01)) as reader:
        frames = [reader.read() for _ in range(14)]
        assert (reader.source.is_live, reader.source.fps) == (True, 50)
        assert reader.status.reconnects >= 1
    assert [frame.number for frame in frames if frame] == list(range(1, 15))
    assert all(frame.unix_time_s and frame.image.shape == (48, 64, 3) for frame in frames if frame)


@needs_gstreamer
def test_a_pipeline_of_another_pixel_format_says_what_is_missing() -> None:
    pipeline = "gst:videotestsrc num-buffers=8 ! video/x-raw,format=NV12 ! appsink"
    with open_source(pipeline) as source, pytest.raises(InputError, match=r"expected \(H, W, 3\) BGR; a pipeline"):
        list(source)


@needs_gstreamer
def test_a_pipeline_that_cannot_be() -> None:
    with pytest.raises(UnavailableError, match="gst-launch"):
        Capture("gst:nosuchelement", timeout_s=0.1).open()  # OpenCV 4.6 hangs on it


@needs_gstreamer
def test_a_pipeline_that_falls_silent_is_stalled() -> None:
    pipeline = "gst:videotestsrc is-live=true num-buffers=3 ! video/x-raw,framerate=50/1 ! valve name=v drop=true"
    with (
        FrameReader(open_source(pipeline), stall_after_s=0.3) as reader,
        pytest.raises(UnavailableError, match="hangs: no frame and no error"),
    ):
        reader.read()
    assert reader.status.abandoned == 1
