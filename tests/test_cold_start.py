"""Fresh processes: what they cost, and what a failing one leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import HamrEdgeError, InputError, UnavailableError
from hamr_edge.benchmarks import cold_start
from hamr_edge.benchmarks.cold_start import measure_cold_start
from hamr_edge.first_embedding import peak_memory_mb
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact


@pytest.mark.parametrize("write", [write_tiny_artifact, write_tiny_frame_artifact])
def test_an_artifact_is_loaded_in_fresh_processes(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "model.onnx")
    found = measure_cold_start(tmp_path / "model.onnx", "cpu", 1, processes=1)
    assert found.processes == 1
    assert found.gpu_memory_mb is None
    assert min(found.import_ms, found.load_ms, found.first_embedding_ms) > 0
    parts = found.import_ms + found.load_ms + found.first_embedding_ms
    assert found.to_first_embedding_ms == pytest.approx(parts)
    assert found.import_ms > found.first_embedding_ms  # numpy, OpenCV and ONNX Runtime against one product
    assert 20 < found.peak_memory_mb < 2000


def test_a_checkpoint_is_loaded_too(checkpoint: Path) -> None:
    found = measure_cold_start(checkpoint, "cpu", 1, processes=1)
    assert found.to_first_embedding_ms > 0
    assert found.import_ms is not None
    assert found.import_ms > found.load_ms  # PyTorch against a tiny network


def test_a_large_parent_does_not_count(tmp_path: Path) -> None:
    """The peak of getrusage is handed from a process to the program that it becomes."""
    model = write_tiny_artifact(tmp_path / "model.onnx")
    before = measure_cold_start(model, "cpu", 1, processes=1).peak_memory_mb
    ballast = np.ones(int(before + 300) * 1_000_000, np.uint8)
    after = measure_cold_start(model, "cpu", 1, processes=1).peak_memory_mb
    assert peak_memory_mb() > ballast.nbytes / 1e6
    assert after < before + 150


@pytest.mark.parametrize(
    ("name", "device", "kind", "words"),
    [
        ("missing.onnx", "cpu", InputError, r"exit code 2.*missing\.onnx is not there"),
        ("model.onnx", "cuda:99", UnavailableError, r"exit code 4.*said: .+"),
    ],
)
def test_a_failure_keeps_its_exit_code_and_its_words(
    tmp_path: Path, name: str, device: str, kind: type[HamrEdgeError], words: str
) -> None:
    write_tiny_artifact(tmp_path / "model.onnx")
    with pytest.raises(kind, match=words) as raised:
        measure_cold_start(tmp_path / name, device, 1)
    assert f"could not load and run {tmp_path / name}" in str(raised.value)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (
            "import sys; sys.stderr.write('one\\ntwo\\nthree\\nfour\\n'); sys.exit(7)",
            7,
            r"exit code 7.*two \| three \| four",
        ),
        ("import os; os.kill(os.getpid(), 9)", 1, r"ended by signal 9; out of memory.*said: nothing"),
        ("print('no JSON')", 1, "gave no result; it said: no JSON"),
        ("pass", 1, "gave no result; it said: nothing"),
        ("import time; time.sleep(60)", 1, "did not load and run .* within"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_ends_badly_is_told(monkeypatch: pytest.MonkeyPatch, script: str, code: int, words: str) -> None:
    monkeypatch.setattr(cold_start, "_START", script)
    monkeypatch.setattr(cold_start, "_LONGEST_S", 1.0)
    with pytest.raises(HamrEdgeError, match=words) as raised:
        measure_cold_start(Path("model.onnx"), "cpu", None)
    assert raised.value.exit_code == code


def test_further_options_reach_the_opener(tmp_path: Path) -> None:
    model = write_tiny_artifact(tmp_path / "model.onnx")
    with pytest.raises(HamrEdgeError, match="no_such_option"):
        measure_cold_start(model, "cpu", None, extra=[("no_such_option", "1")])
    with pytest.raises(InputError, match="1 process or more, got 0"):
        measure_cold_start(model, "cpu", None, processes=0)


def test_the_clock_starts_before_the_first_import() -> None:
    code = "import sys; import hamr_edge.first_embedding; print(*(name for name in sys.modules if name.count('.') < 2))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "hamr_edge.backend" in loaded
    assert not {"hamr_edge.benchmarks", "click", "rich", "torch", "onnxruntime"} & set(loaded)
