from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hamr_edge import ArtifactError, InputError, UnavailableError, open_backend
from hamr_edge.onnx_session import import_onnxruntime
from hamr_edge.sidecar import sidecar_path
from tests.artifacts import write_tiny_artifact
from tests.check_backend import check_backend
from tests.variants import keep, mix_rows, reverse_rows, write_variant


@pytest.mark.parametrize("max_batch", [1, 8])
def test_onnx_backend_keeps_the_contract(tmp_path: Path, max_batch: int) -> None:
    check_backend(open_backend(write_tiny_artifact(tmp_path / "tiny.onnx", max_batch), "cpu", threads=1))


def test_pytorch_backend_keeps_the_contract(checkpoint: Path) -> None:
    check_backend(open_backend(checkpoint, "cpu"))


@pytest.mark.parametrize("change", [mix_rows, reverse_rows])
def test_the_check_sees_mixed_rows(tiny_artifact: Path, tmp_path: Path, change: object) -> None:
    wrong = write_variant(tiny_artifact, tmp_path / "wrong.onnx", change)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="depends on its batch"):
        check_backend(open_backend(wrong, "cpu", threads=1))


def test_opening_is_cheap_and_memory_is_taken_on_entry(tiny_artifact: Path) -> None:
    backend = open_backend(tiny_artifact, "cpu")
    assert not backend.is_open
    assert backend.sidecar.embedding_dim == 12
    assert backend.name == "onnxruntime-cpu"


def test_an_error_inside_the_with_closes_the_backend(tiny_artifact: Path) -> None:
    backend = open_backend(tiny_artifact, "cpu")
    with pytest.raises(KeyError), backend:
        raise KeyError
    assert not backend.is_open


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:x", "cuda:-1", "CPU", ""])
def test_a_device_that_is_none_is_named(tiny_artifact: Path, device: str) -> None:
    with pytest.raises(InputError, match=r"auto, cpu or cuda:N"):
        open_backend(tiny_artifact, device)


def test_a_gpu_that_is_not_there_is_an_error_at_once(tiny_artifact: Path) -> None:
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(UnavailableError, match=r"cuda:0 was asked for.*hamr-edge\[gpu\]"):
        open_backend(tiny_artifact, "cuda:0")
    assert open_backend(tiny_artifact, "auto").device == "cpu"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.onnx", ArtifactError, "is not there"),
        ("missing", InputError, "is not there"),
        ("model.pth", InputError, "no known kind"),
        ("empty", InputError, "checkpoint"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message) as caught:
        open_backend(tmp_path / name, "cpu")
    assert name in str(caught.value)


def test_a_model_of_other_inputs_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    def rename(model: object) -> None:
        graph = model.graph  # type: ignore[attr-defined]
        graph.input[0].name = graph.node[0].input[0] = "pixels"

    other = write_variant(tiny_artifact, tmp_path / "other.onnx", rename)
    with pytest.raises(ArtifactError, match=r"gives \[\('pixels'.*its sidecar says \[\('images'"):
        open_backend(other, "cpu").open()


@pytest.mark.parametrize("entry", [{"input_size_hw": (32, 32)}, {"embedding_dim": 11}])
def test_a_sidecar_that_does_not_fit_its_model_is_refused(
    tiny_artifact: Path, tmp_path: Path, entry: dict[str, object]
) -> None:
    other = write_variant(tiny_artifact, tmp_path / "other.onnx", keep, **entry)
    with pytest.raises(ArtifactError, match="its sidecar says"):
        open_backend(other, "cpu").open()


def test_no_sidecar_no_backend(tiny_artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(tiny_artifact.read_bytes())
    assert not sidecar_path(copy).exists()
    with pytest.raises(ArtifactError, match=r"no sidecar copy\.onnx\.json"):
        open_backend(copy, "cpu")


def test_threads_do_not_change_the_result(tiny_artifact: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)
    with open_backend(tiny_artifact, "cpu", threads=1) as one, open_backend(tiny_artifact, "cpu", threads=2) as two:
        np.testing.assert_allclose(one.infer(batch), two.infer(batch), atol=1e-5)
