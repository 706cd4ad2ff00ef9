"""The frame-path benchmark: what it times agrees, what it could not time is named, wrong pairs are refused."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hamr_edge import GateError, InputError, UnavailableError, open_backend
from hamr_edge.benchmarks import frame_contestants as ways
from hamr_edge.benchmarks import frame_path as frame_path_module
from hamr_edge.benchmarks.crowd_frame import draw_boxes, draw_frame
from hamr_edge.benchmarks.frame_path import (
    FramePathConfig,
    frame_path,
    judge_frame_form,
    measure_frame_path,
)
from hamr_edge.cli import run_and_exit
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.engine_record import EngineRecord
from hamr_edge.onnx_backend import OnnxBackend
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.variants import reverse_rows, write_variant

QUICK = FramePathConfig((240, 320), boxes=5, rounds=2, warmup_rounds=0, device="cpu", threads=1)
FOUR_WAYS = [ways.BARE, ways.LOOP, ways.BATCH, ways.FRAME]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder with both forms of a tiny model in fp32."""
    folder = tmp_path / "build"
    folder.mkdir()
    write_tiny_artifact(folder / "model.fp32.onnx")
    write_tiny_frame_artifact(folder / "model.fp32.frame.onnx")
    return folder


def _edit(artifact: Path, **entries: Any) -> None:
    write_sidecar(replace(load_sidecar(artifact), **entries), sidecar_path(artifact))


def _copy(source: Path, target: Path, **entries: Any) -> None:
    target.write_bytes(source.read_bytes())
    write_sidecar(replace(load_sidecar(source), **entries), sidecar_path(target))


def test_the_command_times_every_way_in_one_run(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = build / "report.json"
    arguments = ["--frame-size", "240x320", "--boxes", "5", "--rounds", "2", "--threads", "1", "--device", "cpu"]
    frame_path.main([str(build), *arguments, "--json", str(file), "--quiet"], standalone_mode=False)
    report = json.loads(file.read_text())
    assert [(way["kind"], way["name"]) for way in report["ways"]] == [("onnx", name) for name in FOUR_WAYS]
    for way in report["ways"]:
        latency = way["latency"]
        assert (latency["batch"], latency["iterations"], way["backend"]) == (5, 2, "onnxruntime-cpu")
        assert 0 < latency["p50_ms"] <= latency["p99_ms"]
        assert latency["images_per_s"] == pytest.approx(5000 / latency["mean_ms"])
        assert 0.999 <= way["min_cosine"] <= way["mean_cosine"] <= 1 + 1e-6
    assert report["ways"][-1]["over_frame_form"] == {
        "median": 1,
        "low": 1,
        "high": 1,
        "median_low": 1,
        "median_high": 1,
    }
    assert [bar["verdict"] for bar in report["bars"]] == ["not judged", "not judged"]
    assert [(left_out["kind"], left_out["reason"]) for left_out in report["not_measured"]] == [
        ("onnx", "onnxruntime-cpu ran it, no GPU; the bars are not judged either"),
        ("engine", "no such files in the folder"),
    ]
    assert {"cpu", "gpus", "libraries", "date", "load_average"} <= set(report["environment"])
    assert report["settings"]["frame_size_hw"] == [240, 320]
    out, err = capsys.readouterr()
    assert err == ""
    for words in (*FOUR_WAYS, "320 x 240 frame, 5 boxes", "at least 5", "at most 1.1", "not measured, engine"):
        assert words in out


def test_ways_that_disagree_are_not_timed(build: Path) -> None:
    (build / "wrong").mkdir()
    wrong = write_variant(build / "model.fp32.onnx", build / "wrong" / "model.fp32.onnx", reverse_rows)
    _copy(wrong, build / "model.fp32.onnx")
    with pytest.raises(GateError, match=r"onnx: box \d has cosine .* between 'bare network.*nothing was timed"):
        measure_frame_path(build, QUICK)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"source_sha256": "1" * 64}, "made of two checkpoints: 000000000000... and 111111111111.*--form crops,frame"),
        ({"precision": "fp16"}, "not of one model: precision fp32 and fp16; export both forms"),
        ({"embedding_dim": 7}, "not of one model: embedding width 12 and 7"),
        ({"form": "crops"}, "is in the crops form, expected the frame form"),
        ({"max_batch": 4}, "takes at most 4 boxes at once, got --boxes 5; take --boxes 4, or export"),
    ],
)
def test_a_pair_that_is_none_is_refused(build: Path, entries: dict[str, Any], words: str) -> None:
    _edit(build / "model.fp32.frame.onnx", **entries)
    with pytest.raises(InputError, match=words):
        measure_frame_path(build, QUICK)


def test_what_the_folder_lacks_is_named(build: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.fp16\.onnx or \.engine; it holds fp32; .*writes one"):
        ways.find_pairs(build, "fp16")
    with pytest.raises(InputError, match=r"holds no model\.<precision>\.engine; 'hamr-edge export"):
        ways.find_pairs(build, None, ("engine",))
    with pytest.raises(InputError, match="is no folder; name the one"):
        ways.find_pairs(build / "nothing", None)
    (build / "model.fp32.engine").touch()
    with pytest.raises(
        InputError, match=r"no model\.fp32\.frame\.engine.*frame\.onnx -o .* --format engine' builds it"
    ):
        ways.find_pairs(build, "fp32")
    (build / "model.fp16.frame.onnx").touch()
    with pytest.raises(InputError, match="holds the precisions fp16, fp32; choose one with --precision"):
        ways.find_pairs(build, None)
    with pytest.raises(InputError, match=r"no model\.fp16\.onnx; .* --precision fp16 --form crops,frame' writes them"):
        ways.find_pairs(build, "fp16")
    assert ways.find_pairs(build, "fp32", ("onnx",)) == [
        ways.FormPair("onnx", build / "model.fp32.onnx", build / "model.fp32.frame.onnx")
    ]


def test_engines_that_cannot_run_here_are_listed_with_the_reason(build: Path) -> None:
    for form in ("fp32", "fp32.frame"):
        _copy(build / f"model.{form}.onnx", build / f"model.{form}.engine")
    report = measure_frame_path(build, QUICK)
    assert {way.kind for way in report.ways} == {"onnx"}
    assert ("engine", "all", "engines run on NVIDIA GPUs, and --device is cpu") in [
        (left_out.kind, left_out.what, left_out.reason) for left_out in report.not_measured
    ]
    with pytest.raises(UnavailableError, match="nothing could be measured: engine: engines run on NVIDIA GPUs"):
        measure_frame_path(build, QUICK, kinds=("engine",))


def test_engines_are_followed_to_their_checkpoint(build: Path) -> None:
    pair = ways.FormPair("engine", build / "model.fp32.engine", build / "model.fp32.frame.engine")
    onnx = [load_sidecar(path.with_suffix(".onnx")) for path in (pair.crops, pair.frame)]
    crops, frame = (replace(sidecar, source_sha256=sidecar.artifact_sha256) for sidecar in onnx)
    ways.check_pair(pair, crops, frame, 5)
    with pytest.raises(InputError, match=r"frame\.engine was not built from the model\.fp32\.frame\.onnx beside it"):
        ways.check_pair(pair, crops, replace(frame, source_sha256="2" * 64), 5)
    _edit(build / "model.fp32.onnx", source_sha256="1" * 64)
    with pytest.raises(InputError, match="made of two checkpoints"):
        ways.check_pair(pair, crops, frame, 5)
    for path in (pair.crops, pair.frame):
        path.with_suffix(".onnx").unlink()
    ways.check_pair(pair, crops, replace(frame, source_sha256="2" * 64), 5)
    said = [
        replace(
            sidecar,
            engine=EngineRecord("tensorrt", "10.3.0", "8.7", "linux", "aarch64", {}, "", checkpoint_sha256=checkpoint),
        )
        for sidecar, checkpoint in ((crops, "3" * 64), (frame, "4" * 64))
    ]
    ways.check_pair(pair, said[0], replace(said[1], engine=said[0].engine), 5)
    with pytest.raises(InputError, match=r"two checkpoints: 333333333333\.\.\. and 444444444444\.\.\."):
        ways.check_pair(pair, *said, 5)


class CallsItselfGpu(OnnxBackend):
    """Runs on the CPU and says it does not."""

    def open(self) -> None:
        super().open()
        self.device = "cuda:0" if self.sidecar.form == "crops" or self.both else "cpu"

    both = True


def test_ways_from_the_gpu_that_fail_leave_the_others_and_the_bars(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_path_module, "open_backend", CallsItselfGpu)
    report = measure_frame_path(build, QUICK, kinds=("onnx",))
    assert [way.name for way in report.ways] == FOUR_WAYS
    assert {bar.verdict for bar in report.bars} <= {"met", "missed"}
    ((kind, what, reason),) = [(left.kind, left.what, left.reason) for left in report.not_measured]
    assert (kind, what) == ("onnx", "crops and frame that are on the GPU")
    assert "no CUDAExecutionProvider" in reason
    monkeypatch.setattr(CallsItselfGpu, "both", False)
    with pytest.raises(UnavailableError, match=r"fp32\.onnx runs on cuda:0, model\.fp32\.frame\.onnx on cpu; name"):
        measure_frame_path(build, QUICK, kinds=("onnx",))


def test_bound_inputs_give_what_plain_feeds_give(build: Path) -> None:
    """On the CPU, the same calls that a GPU gets."""
    rng = np.random.default_rng(0)
    frame, boxes = draw_frame((240, 320), rng), draw_boxes(5, (240, 320), rng)
    pair = ways.find_pairs(build, None)[0]
    with open_backend(pair.crops, "cpu") as crops, open_backend(pair.frame, "cpu") as whole, ExitStack() as stack:
        four = ways.host_contestants("onnx", crops, whole, frame, boxes)
        others = ways.gpu_contestants(pair, crops, whole, frame, boxes, stack)
        assert [way.name for way in others] == [ways.PLAIN_FEEDS, ways.CROPS_ON_GPU, ways.FRAME_ON_GPU]
        for _ in range(2):
            for way in (*four, *others):
                np.testing.assert_allclose(way.run(), four[0].run(), atol=0.02 if "frame form" in way.name else 1e-6)


@pytest.mark.parametrize(
    ("loop_ms", "bare_ms", "on_gpu", "verdicts"),
    [
        (50.0, 9.5, True, ["met", "met"]),
        (49.0, 9.0, True, ["missed", "missed"]),
        (50.0, 9.5, False, ["not judged", "not judged"]),
    ],
)
def test_bars_are_judged_on_a_gpu_alone(loop_ms: float, bare_ms: float, on_gpu: bool, verdicts: list[str]) -> None:
    times = {
        ("engine", name): np.full(5, value)
        for name, value in ((ways.LOOP, loop_ms), (ways.BARE, bare_ms), (ways.FRAME, 10.0))
    }
    bars = judge_frame_form("engine", times, on_gpu)
    assert [bar.verdict for bar in bars] == verdicts
    assert bars[0].measured.median == pytest.approx(loop_ms / 10)
    assert bars[1].measured.median == pytest.approx(10 / bare_ms)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frame-size", "1080p"], "--frame-size must be HEIGHTxWIDTH in pixels, such as 1080x1920, got '1080p'"),
        (["--frame-size", "8x1920"], "--frame-size must be of 32 to 16384 pixels a side"),
        (["--boxes", "0"], "--boxes must be at least 1, got 0"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--format", "onnx,onnx"], "--format must be onnx, engine or both by a comma"),
        (["--device", "gpu"], "device must be auto, cpu or cuda:N"),
    ],
)
def test_wrong_options_are_named(
    build: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_and_exit(frame_path, "frame_path", [str(build), *arguments])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.gpu
def test_a_copy_on_the_gpu_holds_the_array() -> None:
    try:
        gpu = CudaDevice()
    except UnavailableError as error:
        pytest.skip(str(error))
    source = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    back = np.zeros_like(source)
    with ways.DeviceCopy(gpu, source) as copy:
        shared = copy.array.__cuda_array_interface__
        with gpu:
            gpu.driver.memcpy_dtoh(back, shared["data"][0])
    assert (shared["shape"], shared["typestr"]) == ((7, 5, 3), "|u1")
    assert np.array_equal(back, source)


@pytest.mark.parametrize("size_hw", [(32, 32), (240, 320), (1080, 1920)])
def test_the_drawn_frame_is_smooth_and_its_boxes_lie_inside(size_hw: tuple[int, int]) -> None:
    frame = draw_frame(size_hw, np.random.default_rng(3))
    assert (frame.shape, frame.dtype) == ((*size_hw, 3), np.uint8)
    assert np.array_equal(frame, draw_frame(size_hw, np.random.default_rng(3)))
    assert 30 < frame.std() < 100
    steps = np.abs(np.diff(frame.astype(int), axis=0)).mean()
    assert steps < 4000 / size_hw[0]
    boxes = draw_boxes(50, size_hw, np.random.default_rng(3))
    assert (boxes.shape, boxes.dtype) == ((50, 4), np.float32)
    assert np.all(boxes[:, :2] >= 0)
    assert np.all(boxes[:, 2:] <= size_hw[::-1])
    assert np.all(boxes[:, 2:] > boxes[:, :2])
