from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.trainer import pretrained
from hamr_edge.trainer.pretrained import load_pretrained
from hamr_edge.trainer.resnet import BLOCKS, ResNet


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state = ResNet("resnet18").state_dict()
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def write(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: value.half().numpy() for key, value in weights.items()})
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_every_kind_of_file_loads(tmp_path: Path, weights: dict[str, torch.Tensor], suffix: str) -> None:
    backbone = ResNet("resnet18")
    load_pretrained(backbone, "resnet18", str(write(tmp_path / f"weights{suffix}", weights)))
    torch.testing.assert_close(backbone.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"], rtol=1e-3, atol=1e-3)
    assert backbone.conv1.weight.dtype == torch.float32


def test_wrapped_weights_load(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, path)
    backbone = ResNet("resnet18")
    load_pretrained(backbone, "resnet18", str(path))
    torch.testing.assert_close(backbone.conv1.weight, weights["conv1.weight"])


def test_partial_and_foreign_files_list_what_is_wrong(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    partial_ = {key: value for key, value in weights.items() if not key.startswith("layer3")}
    backbone = ResNet("resnet18")
    before = backbone.conv1.weight.clone()
    with pytest.raises(InputError, match=r"25 missing \(layer3\.0\.conv1\.weight, .* and 17 more\)"):
        load_pretrained(backbone, "resnet18", str(write(tmp_path / "partial.pth", partial_)))
    torch.testing.assert_close(backbone.conv1.weight, before)
    deeper = write(tmp_path / "deeper.pth", ResNet("resnet34").state_dict())
    with pytest.raises(InputError, match=r"unknown \(layer1\.2\.conv1\.weight"):
        load_pretrained(backbone, "resnet18", str(deeper))
    with pytest.raises(InputError, match=r"wrong shape \(.*conv1\.weight \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\)"):
        load_pretrained(backbone, "resnet18", str(write(tmp_path / "bottleneck.pth", ResNet("resnet50").state_dict())))
    broken = {**weights, "bn1.weight": torch.full((64,), float("nan"))}
    with pytest.raises(InputError, match=r"1 not finite real numbers \(bn1\.weight\)"):
        load_pretrained(backbone, "resnet18", str(write(tmp_path / "broken.pth", broken)))


@pytest.mark.parametrize("name", ["absent.pth", "garbage.pth", "garbage.npz", "garbage.safetensors", "weights.txt"])
def test_unreadable_files_are_input_errors(tmp_path: Path, name: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"\x00garbage" * 20)
    with pytest.raises(InputError, match=name):
        load_pretrained(ResNet("resnet18"), "resnet18", str(tmp_path / name))


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    torch.save({"conv1.weight": Path("x")}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_pretrained(ResNet("resnet18"), "resnet18", str(path))


def test_imagenet_is_downloaded_and_its_hash_checked(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    path = write(served / "weights.pth", weights)
    right = f"resnet18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(served / right)
    (served / "resnet18-00000000.pth").write_bytes((served / right).read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_SilentHandler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        backbone = ResNet("resnet18")
        monkeypatch.setitem(pretrained._IMAGENET_FILES, "resnet18", right)
        load_pretrained(backbone, "resnet18", "imagenet", url)
        torch.testing.assert_close(backbone.conv1.weight, weights["conv1.weight"])
        monkeypatch.setitem(pretrained._IMAGENET_FILES, "resnet18", "resnet18-00000000.pth")
        with pytest.raises(UnavailableError, match="invalid hash value"):
            load_pretrained(backbone, "resnet18", "imagenet", url)
        monkeypatch.setitem(pretrained._IMAGENET_FILES, "resnet18", "resnet18-11111111.pth")
        with pytest.raises(UnavailableError, match="--pretrained FILE"):
            load_pretrained(backbone, "resnet18", "imagenet", url)
    finally:
        server.shutdown()
        server.server_close()


class _SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_every_backbone_has_its_file() -> None:
    assert set(pretrained._IMAGENET_FILES) == set(BLOCKS)


@pytest.mark.data
def test_the_pruned_imagenet_weights_load(data_root: Path) -> None:
    backbone = ResNet("resnet50")
    load_pretrained(backbone, "resnet50", str(data_root / "models" / "resnet50_imagenet_pruned.npz"))
    assert float((backbone.layer4[2].conv2.weight == 0).float().mean()) > 0.5
