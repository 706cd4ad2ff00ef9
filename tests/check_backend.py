"""What every backend must keep; each backend's tests call it."""

from __future__ import annotations

import numpy as np
import pytest

from hamr_edge.backend import Backend
from hamr_edge.errors import HamrEdgeError, InputError


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
    _check_closed(backend, batch)
    backend.close()  # a second time does nothing
    with backend:  # and it can be opened again
        np.testing.assert_allclose(backend.infer(batch[:1]), expected[:1], atol=atol)


def _check_closed(backend: Backend, batch: np.ndarray) -> None:
    assert not backend.is_open
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer(batch[:1])


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
