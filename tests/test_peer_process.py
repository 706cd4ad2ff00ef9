"""Peers as real processes: the protocol, each way to fail, and the scripts."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.benchmarks.peer_process import PeerProcess, parse_peer
from hamr_edge.embedder import Embedder
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.preprocess import crop_boxes

PEERS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"
SCRIPTS = ("plain_loop", "boxmot_reid", "torchreid_extractor")
DIM = 6

SCRIPT = f"""
import argparse, os, sys, time
sys.path.insert(0, {str(PEERS)!r})
import numpy as np
from protocol import PeerEmbedder, import_library, serve

class Means(PeerEmbedder):
    name, version, backend, precision, device, model = "means", "1.0", "numpy", "fp32", "cpu", __file__
    def __init__(self, arguments):
        self.fault = arguments.fault
        if self.fault == "library":
            import_library("no_such_library_at_all", "pip install it")
        if self.fault == "slow":
            time.sleep(60)
        print("chatter of a library")
        os.system("echo chatter of a program")
    def embed_crops(self, crops):
        if len(crops) == 1:  # the one of the start
            return np.ones((1, {DIM}), np.float32)
        if self.fault == "raise":
            raise ValueError("no such layer")
        if self.fault == "die":
            sys.stderr.write("out of luck\\n")
            os._exit(9)
        if self.fault == "hang":
            time.sleep(60)
        rows = [np.concatenate([crop.mean((0, 1)), crop.std((0, 1))]) for crop in crops]
        rows = np.asarray(rows, np.float32) + 1
        if self.fault == "nan":
            rows[1, 2] = np.nan
        return rows[:-1] if self.fault == "shape" else rows
    def embed_frame(self, frame, boxes):
        time.sleep(0.02)
        return np.ones((len(boxes), {DIM}), np.float32)

parser = argparse.ArgumentParser()
parser.add_argument("--fault", default="")
serve(parser, Means)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peer") / "means.py"
    path.write_text(SCRIPT)
    return path


def means(script: Path, fault: str = "", timeout_s: float = 30.0) -> PeerProcess:
    return PeerProcess("means", [sys.executable, str(script), "--fault", fault], timeout_s, timeout_s)


def speaking(tmp_path: Path, line: str) -> PeerProcess:
    """A peer that says one line when it starts."""
    path = tmp_path / "speaks.py"
    path.write_text(f"import sys\nprint({line!r}, flush=True)\nsys.stdin.read()\n")
    return PeerProcess("speaks", [sys.executable, str(path)], 30.0, 30.0)


def crops_of(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*rng.integers(1, 40, 2), 3), np.uint8) for _ in range(count)]


def test_a_peer_tells_who_it_is_and_embeds_crops_of_any_sizes(script: Path) -> None:
    crops = crops_of(5)
    with means(script) as peer:
        assert (peer.info.name, peer.info.version, peer.info.embedding_dim) == ("means", "1.0", DIM)
        assert peer.info.size_bytes == script.stat().st_size
        assert peer.info.load_ms > 0
        assert peer.peak_memory_mb() >= peer.info.peak_memory_mb * 0.99
        found = peer.embed_crops(crops)
        assert peer.embed_crops([]).shape == (0, DIM)
    expected = np.array([[*crop.mean((0, 1)), *crop.std((0, 1))] for crop in crops]) + 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not peer.is_open
    assert peer.info.name == "means"


def test_a_frame_is_timed_by_the_peer_itself(script: Path, frame: np.ndarray) -> None:
    with means(script) as peer:
        peer.prepare_frame(frame, [[10, 10, 40, 90], [-5, 0, 30, 50]])
        assert 0.02 <= peer.run_frame() < 5
        with pytest.raises(InputError, match="one box or more"):
            peer.prepare_frame(frame, [])
        with pytest.raises(InputError, match="wholly outside"):
            peer.prepare_frame(frame, [[500, 10, 540, 90]])
        assert peer.is_open  # our own checks do not cost the process


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "failed at 'embed_crops': ValueError: no such layer"),
        ("die", "ended with exit code 9 before it answered 'embed_crops'; its last words: .*out of luck"),
        ("shape", r"gave embeddings of float32 \(2, 6\), expected float32 \(3, 6\)"),
        ("nan", "gave a value that is not finite in row 1 of"),
    ],
)
def test_a_failure_names_the_peer_and_ends_it(script: Path, fault: str, words: str) -> None:
    peer = means(script, fault)
    with peer:
        process = process_of(peer)
        with pytest.raises(HamrEdgeError, match=f"peer means {words}"):
            peer.embed_crops(crops_of(3))
        assert not peer.is_open
        assert process.returncode is not None
        with pytest.raises(HamrEdgeError, match="is not open"):
            peer.run_frame()


def test_a_peer_that_hangs_is_ended(script: Path) -> None:
    with means(script, "hang") as peer:
        peer._timeout_s = 0.3
        begin = time.monotonic()
        with pytest.raises(HamrEdgeError, match=r"gave no answer to 'embed_crops' within 0\.3 s"):
            peer.embed_crops(crops_of(2))
        assert time.monotonic() - begin < 10


def test_a_peer_that_does_not_start_is_ended(script: Path) -> None:
    with pytest.raises(HamrEdgeError, match=r"no answer to 'ready' within 0\.5 s"):
        means(script, "slow", timeout_s=0.5).open()


def test_what_is_missing_is_said(script: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"peer p: .*python-of-none cannot be started .*README\.md"):
        PeerProcess("p", [str(tmp_path / "python-of-none")]).open()
    with pytest.raises(UnavailableError, match=r"needs no_such_library_at_all.*make its environment: pip install it"):
        means(script, "library").open()
    with pytest.raises(InputError, match="unrecognized arguments: --what"):
        PeerProcess("p", [sys.executable, str(script), "--what"]).open()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("loading weights...", "answered 'loading weights...' to 'ready', which is no JSON object"),
        ("[1, 2]", ".*which is no JSON object"),
        ('{"protocol": 7}', "speaks protocol 7, expected 1"),
        ('{"protocol": 1, "name": "x"}', "does not say its version, backend"),
        (
            '{"protocol": 1, "name": "x", "version": "1", "backend": "b", "precision": "fp32", "device": "cpu", '
            '"embedding_dim": 4, "size_bytes": 9, "load_ms": NaN, "first_embedding_ms": 1, "peak_memory_mb": 1}',
            "answered load_ms = nan",
        ),
    ],
)
def test_garbage_is_told(tmp_path: Path, line: str, words: str) -> None:
    peer = speaking(tmp_path, line)
    with pytest.raises(HamrEdgeError, match=f"peer speaks {words}"):
        peer.open()
    assert not peer.is_open


def test_an_interrupt_leaves_nothing_behind(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with means(script, "hang") as peer:
        process, folder = process_of(peer), Path(peer._file("x")).parent
        monkeypatch.setattr(peer._channel, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            peer.embed_crops(crops_of(2))
        assert process.returncode is not None
        assert not folder.exists()


def test_what_the_peer_started_ends_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    path = tmp_path / "parent.py"
    path.write_text(
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(HamrEdgeError, match="no answer to 'ready'"):
        PeerProcess("parent", [sys.executable, str(path)], start_timeout_s=1.5).open()
    deadline = time.monotonic() + 5
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(int(pid_file.read_text()))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def process_of(peer: PeerProcess) -> subprocess.Popen[str]:
    assert peer._channel is not None
    return peer._channel._process


def is_running(pid: int) -> bool:
    """Not ended, and not ended with nobody who asked."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_parse_peer() -> None:
    peer = parse_peer("boxmot = env/bin/python 'my scripts/boxmot_reid.py' --size=2x1")
    assert (peer.name, peer.command) == ("boxmot", ["env/bin/python", "my scripts/boxmot_reid.py", "--size=2x1"])
    for text in ("boxmot", "=python x.py", "boxmot= ", ""):
        with pytest.raises(InputError, match="expects NAME=COMMAND"):
            parse_peer(text)
    with pytest.raises(InputError, match="cannot be split into words"):
        parse_peer("boxmot=python 'x.py")


@settings(deadline=None)
@given(st.text())
def test_parse_peer_takes_any_text(text: str) -> None:
    try:
        peer = parse_peer(text)
    except InputError:
        return
    assert peer.name
    assert peer.command


def write_float_model(path: Path) -> Path:
    """(N, 3, 32, 16) float in, (N, 5) out, not normalised."""
    weight = np.random.default_rng(3).normal(size=(3 * 8 * 4, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["output"]),
        ],
        "float",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


BOXES = np.array([[10, 10, 40, 90], [70, 5, 101, 60], [-5, 0, 30.4, 50]], np.float32)


def test_the_plain_loop_runs_our_artifacts(tiny_artifact: Path, frame: np.ndarray) -> None:
    with Embedder(tiny_artifact) as embedder:
        expected = embedder.embed(frame, BOXES)
    peer = parse_peer(f"plain={sys.executable} {PEERS / 'plain_loop.py'} --model {tiny_artifact} --input uint8")
    with peer:
        found = peer.embed_crops(crops_in(frame))
        peer.prepare_frame(frame, BOXES)
        assert peer.run_frame() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_plain_loop_runs_models_of_others(tmp_path: Path, frame: np.ndarray) -> None:
    from hamr_edge.foreign_onnx import ForeignOnnxBackend

    model = write_float_model(tmp_path / "model.onnx")
    with ForeignOnnxBackend(model, "rgb-float-imagenet", "cpu") as backend:
        expected = backend.infer(crop_boxes(frame, BOXES, (32, 16)))
    with parse_peer(f"plain={sys.executable} {PEERS / 'plain_loop.py'} --model {model} --threads 1") as peer:
        found = peer.embed_crops(crops_in(frame))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def crops_in(frame: np.ndarray) -> list[np.ndarray]:
    """The pixels of BOXES."""
    return [frame[10:90, 10:40], frame[5:60, 70:101], frame[0:50, 0:30]]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_its_help_without_its_library(name: str, tmp_path: Path) -> None:
    py_compile.compile(str(PEERS / f"{name}.py"), cfile=str(tmp_path / "out.pyc"), doraise=True)
    run = run_script(name, "--help")
    assert run.returncode == 0, run.stderr
    assert "--model" in run.stdout


@pytest.mark.parametrize("name", SCRIPTS[1:])
def test_a_script_without_its_library_says_how_to_get_it(name: str, tiny_artifact: Path, tmp_path: Path) -> None:
    # A library of that name that does not import, wherever the real one may be installed.
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")
    run = run_script(name, "--model", str(tiny_artifact), shadow=tmp_path)
    assert run.returncode == 4
    assert "needs torch, which does not import here (not here)" in run.stderr
    assert "pip install torch==" in run.stderr
    assert run.stdout == ""


def run_script(name: str, *words: str, shadow: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(shadow)} if shadow else None
    return subprocess.run(
        [sys.executable, str(PEERS / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
