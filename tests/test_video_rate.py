"""The rate on a video: a real file, our way and the plain loop in a process of its own."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.video_rate import Bound, bound_sentence, cut_segments, measure_video_rate, video_rate
from hamr_edge.benchmarks.video_ways import OurWay, plain_loop
from hamr_edge.detections import load_detections
from hamr_edge.embedder import Embedder
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.sidecar import load_sidecar
from hamr_edge.video import open_source
from tests.video_files import moving_square, write_video

FRAMES, SEGMENT = 23, 5


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "square.avi", moving_square(FRAMES))


@pytest.fixture(scope="module")
def detections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boxes a frame at twice the size, one of them partly outside; none in frames 8 and 9."""
    path = tmp_path_factory.mktemp("boxes") / "det.txt"
    numbers = [number for number in range(1, FRAMES + 1) if number not in (8, 9)]
    path.write_text("".join(f"{n},-1,{4 * n},40,80,90,0.9\n{n},-1,-20,0,70,60,0.8\n" for n in numbers))
    return path


def run(*words: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(video_rate, [*(str(word) for word in words), "--json", "-", "--quiet"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_our_way_and_the_plain_loop(video: Path, detections: Path, tiny_artifact: Path) -> None:
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "peers" / "plain_loop.py"
    words = [sys.executable, str(script), "--model", str(tiny_artifact), "--input", "uint8"]
    report = run(
        *(video, "--detections", detections, "--detections-scale", "0.5", "--model", tiny_artifact),
        *("--segment", str(SEGMENT), "--passes", "2", "--threads", "1", "--peer", f"again={shlex.join(words)}"),
    )
    # 4 segments of 5 frames; the first of each pass warms up, and 3 frames are left over.
    assert report["video"] == {
        "name": "square.avi",
        "frames": 2 * 3 * SEGMENT,
        "people": 2 * 2 * (3 * SEGMENT - 2),
        "segment": SEGMENT,
        "rounds": 6,
    }
    ours, loop, again = report["ways"]
    assert [way["name"] for way in report["ways"]] == ["hamr-edge", "plain loop", "again"]
    assert ours["over_ours"] is None
    assert ours["frames_per_s"] > 0
    for way in (loop, again):
        assert way["over_ours"]["median_low"] <= way["over_ours"]["median"] <= way["over_ours"]["median_high"]
        assert way["min_cosine"] > 0.9999  # the same frames, boxes and pixels
        assert way["people_per_s"] / way["frames_per_s"] == pytest.approx(26 / 15)
    assert {bound["stage"] for bound in report["bounds"]} == {"decode", "crop", "infer"}
    assert 0.5 < sum(bound["share"] for bound in report["bounds"]) <= 1
    assert report["config"]["threads"] == 1


def test_our_way_is_the_embedder(video: Path, detections: Path, tiny_artifact: Path) -> None:
    cut = cut_segments(video, load_detections(detections, 0.5), SEGMENT)
    with open_source(video) as source, Embedder(tiny_artifact) as embedder:
        images = [frame.image for frame in source]
        expected = [embedder.embed(images[index], boxes) for index, boxes in enumerate(cut.boxes[0] + cut.boxes[1])]
    with OurWay(open_backend(tiny_artifact, "cpu", 1)) as way:
        way.rewind(video)
        found = [way.run(boxes)[1] for boxes in cut.boxes[:2]]
        assert set(way.stage_seconds) == {"decode", "crop", "infer", "other"}
        way.rewind(video)
        again = way.run(cut.boxes[0])[1]
        way.run(cut.boxes[0] * 3)
        with pytest.raises(HamrEdgeError, match="ended before its last segment"):
            way.run(cut.boxes[0])
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-6)
    np.testing.assert_allclose(again, found[0], atol=1e-6)


class Idle:
    """A way that does as ours, and claims a time of its own."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.backend, self.seconds = name, "none", seconds
        self.stage_seconds = {"decode": seconds / 4, "infer": seconds / 2, "other": seconds / 4}
        self.turns: list[int] = []

    def rewind(self, path: Path) -> None:
        self.turns.append(-1)

    def run(self, boxes: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
        self.turns.append(len(boxes))
        return self.seconds, np.tile(np.float32([0.6, 0.8]), (sum(map(len, boxes)), 1))


def test_rates_ratios_and_bounds(video: Path, detections: Path) -> None:
    cut = cut_segments(video, load_detections(detections, 0.5), SEGMENT)
    ours, slow = Idle("ours", 0.5), Idle("slow", 2.0)
    rng = np.random.default_rng(0)
    rates, bounds = measure_video_rate(cut, ours, [slow], 2, rng, quiet=True)  # type: ignore[arg-type, list-item]
    assert ours.turns == slow.turns == [-1, 5, 5, 5, 5] * 2
    assert rates[0].frames_per_s == pytest.approx(SEGMENT / 0.5)
    assert rates[0].p50_ms_per_frame == pytest.approx(1000 * 0.5 / SEGMENT)
    assert rates[1].over_ours is not None
    assert rates[1].over_ours.median == pytest.approx(4)
    assert rates[1].min_cosine == pytest.approx(1)
    assert bounds == (Bound("infer", 0.5, SEGMENT / 0.25), Bound("decode", 0.25, SEGMENT / 0.125))
    assert bound_sentence(bounds) == ("infer bounds it: 50 % of the time, 20.0 frames/s by itself (decode alone 40)")


def test_the_table_says_what_bounds_it(video: Path, detections: Path, tiny_artifact: Path) -> None:
    words = [str(video), "--detections", str(detections), "--detections-scale", "0.5", "--model", str(tiny_artifact)]
    result = CliRunner().invoke(video_rate, [*words, "--segment", "4", "--no-plain-loop", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "square.avi: 16 frames" in result.output
    assert "bounds it:" in result.output


def test_what_cannot_be_measured_is_said(video: Path, detections: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    usual = ("--detections", detections, "--detections-scale", "0.5", "--model", tiny_artifact)
    with pytest.raises(InputError, match="23 frames, which are not 2 segments of 20"):
        run(video, *usual, "--segment", "20")
    with pytest.raises(InputError, match="each needs a name of its own"):
        run(video, *usual, "--segment", "5", "--peer", "a=python", "--peer", "a=python")
    with pytest.raises(InputError, match="wholly outside the 160 x 120 frame"):
        run(video, *usual[:2], "--model", tiny_artifact, "--detections-scale", "9", "--segment", "5")
    late = tmp_path / "late.txt"
    late.write_text("23,-1,10,10,20,20,1\n")
    with pytest.raises(InputError, match="has no box in the first 20 frames"):
        run(video, "--detections", late, "--model", tiny_artifact, "--segment", "5")


def test_where_there_is_no_plain_loop(tiny_artifact: Path) -> None:
    sidecar = load_sidecar(tiny_artifact)
    for form in ("frame", "nchw"):
        assert "crops form" in str(plain_loop(tiny_artifact, replace(sidecar, form=form), None, None))
    assert "crops form" in str(plain_loop(Path("model.engine"), sidecar, None, None))
    assert "not bgr-half-255" in str(plain_loop(tiny_artifact, sidecar, "bgr-half-255", None))
