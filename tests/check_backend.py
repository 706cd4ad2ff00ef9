"""What every backend must keep; each backend's tests call it."""

from __future__ import annotations

import numpy as np
import pytest

from hamr_edge.backend import Backend
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.preprocess import crop_boxes


def check_backend(backend: Backend, atol: float = 1e-4) -> None:
    """Hold a backend that is not open against the contract of :class:`hamr_edge.backend.Backend`.

    Args:
        backend: Closed; it is closed again afterwards.
        atol: How far a value may differ where a crop is embedded in another batch.
    """
    sidecar = backend.sidecar
    height, width = sidecar.input_size_hw
    count = sidecar.max_batch + 1
    batch = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)

    assert backend.name
    assert backend.device == "cpu" or backend.device.startswith("cuda:")
    _check_closed(backend, batch)
    with backend as entered:
        assert entered is backend
        assert backend.is_open
        backend.open()  # a second time does nothing
        expected = _check_rows(backend, batch, atol)
        _check_refused(backend, batch)
        _check_frame(backend, atol)
        _check_stages(backend, batch)
    _check_closed(backend, batch)
    backend.close()  # a second time does nothing
    with backend:  # and it can be opened again
        np.testing.assert_allclose(backend.infer(batch[:1]), expected[:1], atol=atol)


def _check_closed(backend: Backend, batch: np.ndarray) -> None:
    assert not backend.is_open
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer(batch[:1])
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer_frame(batch[0], [[0, 0, 4, 4]])
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer_stages(batch[:1])
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer_frame_stages(batch[0], [[0, 0, 4, 4]])


def _check_rows(backend: Backend, batch: np.ndarray, atol: float) -> np.ndarray:
    width = backend.sidecar.embedding_dim
    before = batch.copy()
    together = backend.infer(batch)  # one more than the maximum batch
    assert together.shape == (len(batch), width)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    np.testing.assert_array_equal(batch, before, "the batch was written to")

    none = backend.infer(batch[:0])
    assert none.shape == (0, width)
    assert none.dtype == np.float32

    kept = together.copy()
    alone = np.concatenate([backend.infer(batch[row : row + 1]) for row in range(len(batch))])
    np.testing.assert_allclose(alone, together, atol=atol, err_msg="a row depends on its batch")
    np.testing.assert_array_equal(together, kept, "the caller's rows were overwritten")
    together[:] = 0  # the caller owns them
    shuffled = np.random.default_rng(1).permutation(len(batch))
    np.testing.assert_allclose(backend.infer(batch[shuffled]), kept[shuffled], atol=atol, err_msg="rows changed order")

    for name, strided in (("every second", batch[::2]), ("backwards", batch[::-1]), ("mirrored", batch[:, :, ::-1])):
        whole = backend.infer(np.ascontiguousarray(strided))
        np.testing.assert_allclose(backend.infer(strided), whole, atol=atol, err_msg=f"non-contiguous: {name}")
    read_only = batch[:1].copy()
    read_only.flags.writeable = False
    np.testing.assert_allclose(backend.infer(read_only), kept[:1], atol=atol)
    return kept


def _check_refused(backend: Backend, batch: np.ndarray) -> None:
    height, width = backend.sidecar.input_size_hw
    wrong = {
        "a list": batch.tolist()[:1],
        "float32": batch[:1].astype(np.float32),
        "a single crop": batch[0],
        "another height": np.zeros((1, height + 1, width, 3), np.uint8),
        "another width": np.zeros((1, height, width + 1, 3), np.uint8),
        "channels first": np.zeros((1, 3, height, width), np.uint8),
        "four channels": np.zeros((1, height, width, 4), np.uint8),
        "none, of another size": np.zeros((0, height + 1, width, 3), np.uint8),
    }
    for name, value in wrong.items():
        with pytest.raises(InputError) as caught:
            backend.infer(value)  # type: ignore[arg-type]
        assert f"uint8 (N, {height}, {width}, 3) BGR" in str(caught.value), name


def _check_frame(backend: Backend, atol: float) -> None:
    """In the frame form, a frame and boxes give what their crops give; in the crops form, the error says what to do."""
    sidecar = backend.sidecar
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (487, 653, 3), np.uint8)
    first = rng.uniform(-20, 400, (sidecar.max_batch + 1, 2))
    boxes = np.concatenate([first, first + rng.uniform(21, 300, first.shape)], axis=1)
    if sidecar.form != "frame":
        with pytest.raises(InputError, match=r"this one is in the crops form; use Embedder\.embed"):
            backend.infer_frame(frame, boxes)
        return
    before = frame.copy()
    expected = backend.infer(crop_boxes(frame, boxes, sidecar.input_size_hw))
    together = backend.infer_frame(frame, boxes)  # one more than the maximum batch
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, expected, atol=atol, err_msg="the crops are others than OpenCV's")
    np.testing.assert_array_equal(frame, before, "the frame was written to")
    assert backend.infer_frame(frame, []).shape == (0, sidecar.embedding_dim)
    kept = together.copy()
    alone = np.concatenate([backend.infer_frame(frame, boxes[[row]]) for row in range(len(boxes))])
    np.testing.assert_allclose(alone, kept, atol=atol, err_msg="a row depends on its batch")
    np.testing.assert_array_equal(together, kept, "the caller's rows were overwritten")
    np.testing.assert_allclose(backend.infer_frame(frame, boxes[::-1]), kept[::-1], atol=atol, err_msg="order")
    mirrored = backend.infer_frame(np.ascontiguousarray(frame[:, ::-1]), boxes)
    np.testing.assert_allclose(backend.infer_frame(frame[:, ::-1], boxes), mirrored, atol=atol, err_msg="strides")
    for wrong in (frame[None], frame.astype(np.float32), frame[:, :, 0], frame.tolist()):
        with pytest.raises(InputError, match=r"frame must be a \(H, W, 3\) uint8 BGR array"):
            backend.infer_frame(wrong, boxes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"boxes\[1\].* is inverted"):
        backend.infer_frame(frame, [[0, 0, 5, 5], [5, 5, 0, 0]])


def _check_stages(backend: Backend, batch: np.ndarray) -> None:
    """Times of one run; none of nothing, and none of what takes several runs."""
    before = batch.copy()
    frame, boxes = np.zeros((487, 653, 3), np.uint8), [[0, 0, 40, 80], [10, 20, 90, 200]]
    count = min(2, backend.sidecar.max_batch)
    found = [backend.infer_stages(batch[:count]), backend.infer_stages(batch[::-1][:count])]
    if backend.sidecar.form == "frame":
        found.append(backend.infer_frame_stages(frame, boxes[:count]))
    else:
        with pytest.raises(InputError, match=r"this one is in the crops form"):
            backend.infer_frame_stages(frame, boxes[:count])
    for times in found:
        assert np.isfinite([times.upload_ms, times.compute_ms, times.download_ms]).all()
        assert times.compute_ms > 0
        assert min(times.upload_ms, times.download_ms) >= 0
    for wrong in (batch[:0], batch):
        with pytest.raises(InputError, match=rf"of 1 to {len(batch) - 1} crops; got {len(wrong)}"):
            backend.infer_stages(wrong)
    with pytest.raises(InputError, match=r"uint8 \(N, "):
        backend.infer_stages(batch[0])
    np.testing.assert_array_equal(batch, before, "the batch was written to")
