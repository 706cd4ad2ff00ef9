"""Embedding what cameras see into a table and videos: what one camera does wrong costs the others nothing."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from hamr_edge import Embedder, HamrEdgeError, embedding_table
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.cli import hamr_edge
from hamr_edge.embed_cameras import AnnotatedVideos, EmbedRun, embed_cameras
from hamr_edge.embedding_table import EmbeddingTable
from hamr_edge.frame_reader import FrameReader
from hamr_edge.identities import Identities
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.timeline import Timeline
from hamr_edge.video import Frame
from tests.test_cameras import ListedFrames, find_square
from tests.video_files import moving_square, read_video, write_video


@pytest.fixture
def service(tiny_artifact: Path) -> Iterator[EmbeddingService]:
    with Embedder(tiny_artifact, "cpu", 1) as embedder, EmbeddingService(embedder, max_delay_ms=2) as service:
        yield service


def _embed(names: list[str], frames: int, service: EmbeddingService, table: EmbeddingTable) -> EmbedRun:
    cameras = [Camera(name, ListedFrames(name, frames), find_square) for name in names]
    readers = [FrameReader(camera.source) for camera in cameras]
    return embed_cameras(cameras, readers, service, table, Timeline())


def _spoil(camera: str, numbers: set[int]) -> mock._patch[object]:
    """Let the first embedding of these frames be no number."""
    give = CameraPipeline.frames

    def frames(self: CameraPipeline, tick_s: float) -> Iterator[EmbeddedFrame | None]:
        for seen in give(self, tick_s):
            if seen is not None and seen.camera == camera and seen.frame.number in numbers:
                seen.embeddings[0] = np.nan
            yield seen

    return mock.patch.object(CameraPipeline, "frames", frames)


def test_an_embedding_that_is_no_number_costs_its_frame(tmp_path: Path, service: EmbeddingService) -> None:
    path, dim = tmp_path / "o.parquet", service._embedder.sidecar.embedding_dim
    with _spoil("a", {2, 3}), EmbeddingTable(path, dim) as table:
        run = _embed(["a", "b"], 8, service, table)
    assert [run.summary.cameras[name].failed for name in ("a", "b")] == [2, 0]
    assert [run.summary.cameras[name].embedded for name in ("a", "b")] == [6, 8]
    assert "frames failed: a: 2, the last frame 3: a, frame 3: embedding 0 is not finite" in str(run.failure)
    rows = pq.read_table(path).to_pylist()
    frames = {name: {row["frame"] for row in rows if row["camera"] == name} for name in ("a", "b")}
    assert frames == {"a": {1, 5, 6, 7}, "b": {1, 2, 3, 5, 6, 7}}
    assert run.summary.people == len(rows)


def test_a_disk_that_is_full_ends_the_run(tmp_path: Path, service: EmbeddingService) -> None:
    dim = service._embedder.sidecar.embedding_dim
    full = mock.patch("hamr_edge.arrow_spill.ArrowSpill.append", side_effect=OSError(28, "No space left"))
    with (
        mock.patch.object(embedding_table, "_BATCH_BYTES", 4 * dim),
        full,
        pytest.raises(HamrEdgeError, match=r"cannot write .*No space left"),
        EmbeddingTable(tmp_path / "o.parquet", dim) as table,
    ):
        _embed(["a", "b"], 8, service, table)


def test_what_came_is_saved_while_nothing_comes(
    tmp_path: Path, service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.embed_cameras._TICK_S", 0.05)
    source = ListedFrames("a", 8, fault_at=4)
    table = EmbeddingTable(tmp_path / "o.parquet", service._embedder.sidecar.embedding_dim)
    saved = []

    def save() -> None:
        if table._spill is not None and table.rows == 6:
            monkeypatch.setattr(embedding_table, "_SAVE_EVERY_S", 0.0)
            save_now()
            saved.append(table._spill.rows)
            source.let_go.set()

    save_now = table.save_when_due
    with table:
        monkeypatch.setattr(table, "save_when_due", save)
        camera = Camera("a", source, find_square)
        embed_cameras([camera], [FrameReader(source, stall_after_s=math.inf)], service, table, Timeline())
    assert saved[-1] == 6
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 12


def test_each_camera_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["front door", "front_door", "front door-2", "Front/Door", "a.b", ".."]
    cameras = [Camera(name, ListedFrames(name), find_square) for name in names]
    videos = AnnotatedVideos(
        tmp_path / "o.mp4", cameras, [FrameReader(camera.source) for camera in cameras], Identities(2)
    )
    files = [path.name for path in videos.paths.values()]
    assert files == [
        "o.front_door.mp4",
        "o.front_door-2.mp4",
        "o.front_door-2-2.mp4",
        "o.Front_Door-3.mp4",
        "o.a.b.mp4",
        "o....mp4",
    ]
    assert {path.parent for path in videos.paths.values()} == {tmp_path}


def test_cameras_of_like_names_are_drawn_apart(tmp_path: Path, tiny_artifact: Path) -> None:
    sources = [write_video(tmp_path / f"{count}.avi", moving_square(count)) for count in (3, 5)]
    names = ["--camera", "front door", "--camera", "front_door"]
    options = ["--detector", "hog", "-o", tmp_path / "o.parquet", "--video", tmp_path / "o.mp4", "-q"]
    result = CliRunner().invoke(
        hamr_edge, list(map(str, ["embed", *sources, "-m", tiny_artifact, *names, *options])), standalone_mode=False
    )
    assert result.exception is None, result.output
    assert len(read_video(tmp_path / "o.front_door.mp4")) == 3
    assert len(read_video(tmp_path / "o.front_door-2.mp4")) == 5


def test_no_source_is_overwritten_by_a_cameras_video(tmp_path: Path, tiny_artifact: Path) -> None:
    first = write_video(tmp_path / "door.avi", moving_square(3))
    second = write_video(tmp_path / "made.avi", moving_square(3)).rename(tmp_path / "o.door.mp4")
    before = second.read_bytes()
    command = ["embed", first, second, "-m", tiny_artifact, "--detector", "hog", "-o", tmp_path / "o.parquet"]
    result = CliRunner().invoke(
        hamr_edge, list(map(str, [*command, "--video", tmp_path / "o.mp4"])), standalone_mode=False
    )
    assert "o.door.mp4 is the source; write to another file" in str(result.exception)
    assert second.read_bytes() == before


def test_a_video_plays_as_fast_as_the_source_that_was_read(tmp_path: Path) -> None:
    camera = Camera("a", ListedFrames("a"), find_square)  # 10 frames a second, and never opened
    reader = SimpleNamespace(source=SimpleNamespace(fps=40.0))
    rows = np.zeros((0, 4), np.float32)
    seen = EmbeddedFrame("a", Frame(1, 0.0, moving_square(1)[0]), rows, rows[:, 0], np.zeros((0, 2), np.float32))
    with AnnotatedVideos(tmp_path / "o.mp4", [camera], [reader], Identities(2)) as videos:  # type: ignore[list-item]
        videos.append(seen)
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(40)
    capture.release()


def test_frames_of_mixed_sizes_are_drawn_and_stop_nobody(
    tmp_path: Path, tiny_artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed, other = tmp_path / "mixed", write_video(tmp_path / "other.avi", moving_square(6))
    mixed.mkdir()
    for number, size_hw in enumerate([(100, 80), (80, 100), (50, 80), (100, 80)], 1):
        cv2.imwrite(str(mixed / f"{number}.png"), np.full((*size_hw, 3), 200, np.uint8))
    boxes = tmp_path / "d.txt"
    boxes.write_text("".join(f"{number},-1,5,5,30,40\n" for number in range(1, 7)))
    options = [
        "--detections",
        boxes,
        "--detections",
        boxes,
        "-o",
        tmp_path / "o.parquet",
        "--video",
        tmp_path / "o.mp4",
    ]
    with caplog.at_level(logging.WARNING):
        result = CliRunner().invoke(
            hamr_edge,
            list(map(str, ["embed", mixed, other, "-m", tiny_artifact, *options, "-q"])),
            standalone_mode=False,
        )
    assert result.exception is None, result.output
    counts = {name: len(read_video(tmp_path / f"o.{name}.mp4")) for name in ("mixed", "other")}
    assert counts == {"mixed": 4, "other": 6}
    assert all(f"{tmp_path / name} (" in result.stdout for name in ("o.parquet", "o.mixed.mp4", "o.other.mp4"))
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 10
    assert caplog.text.count("are fitted into the video with bars") == 1


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_is_heard_while_the_receiver_is_what_is_slow(tmp_path: Path, tiny_artifact: Path) -> None:
    """Decoding and embedding are far ahead of drawing here: a frame is ready whenever the receiver comes back."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 400):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((90, 60, 3), 90, np.uint8))
    boxes = tmp_path / "d.txt"
    boxes.write_text("".join(f"{number},-1,5,5,50,80\n" for number in range(1, 400)))
    code = """if True:
        import time
        from hamr_edge.annotate import AnnotatedVideo
        from hamr_edge.cli import main
        draw = AnnotatedVideo.append
        def draw_slowly(self, frame, boxes, embeddings):
            time.sleep(0.05)
            draw(self, frame, boxes, embeddings)
            print("drawn", flush=True)
        AnnotatedVideo.append = draw_slowly
        main()
    """
    options = ["-m", tiny_artifact, "--detections", boxes, "-o", tmp_path / "o.parquet", "-q", "--max-delay-ms", 0]
    arguments = ["embed", folder, *options, "--video", tmp_path / "o.mp4"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        before = 0
        while before < 20 and process.stdout.readline():
            before += 1
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    # What was in the pipe, half a second of frames until the question is asked, eight that are on their way, and time
    # for a busy machine.
    assert stdout.count("drawn") < 60
    assert time.monotonic() - began_s < 20
    rows = pq.read_table(tmp_path / "o.parquet").num_rows
    assert rows == before + stdout.count("drawn") == len(read_video(tmp_path / "o.mp4"))
