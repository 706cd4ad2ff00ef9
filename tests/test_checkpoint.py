from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hamr_edge.backend import open_backend
from hamr_edge.errors import InputError
from hamr_edge.trainer.checkpoint import load_checkpoint


def test_a_checkpoint_comes_back_as_it_was(checkpoint: Path) -> None:
    network, info, sha256 = load_checkpoint(checkpoint)
    assert not network.training
    assert info.config.network == network.config
    assert len(sha256) == 64
    description = json.loads((checkpoint / "checkpoint.json").read_text())
    assert description["weights_sha256"] == sha256


def test_the_pytorch_backend_keeps_the_contract(checkpoint: Path) -> None:
    with open_backend(checkpoint, "cpu") as backend:
        height, width = backend.sidecar.input_size_hw
        batch = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
        embeddings = backend.infer(batch)
        assert embeddings.shape == (5, backend.sidecar.embedding_dim)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(backend.infer(batch[3:4])[0], embeddings[3], atol=1e-5)
        assert backend.infer(batch[:0]).shape == (0, backend.sidecar.embedding_dim)


def test_wrong_checkpoints_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a checkpoint: it has no checkpoint\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_bytes((checkpoint / "checkpoint.json").read_bytes())
    with pytest.raises(InputError, match=r"no readable weights\.safetensors"):
        load_checkpoint(tmp_path)
    weights = bytearray((checkpoint / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"not the file that checkpoint\.json vouches for.*--resume"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_a_gpu_that_is_not_there_is_an_error(checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(Exception, match="cuda:0 was asked for, but PyTorch"):
        open_backend(checkpoint, "cuda:0")
