from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from hamr_edge.calibration.blocks import find_blocks
from hamr_edge.calibration.osnet_quantization import (
    INPUT_SIZE_HW,
    NETWORK_FILE,
    load_osnet,
    network_to_onnx,
    osnet_quantization,
)
from hamr_edge.errors import InputError
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB

NETWORK = """
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 7, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(8, 8, 3, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, images):
        maps = self.conv2(self.conv1(images))
        features = self.fc(self.pool(maps * self.gate(maps)).flatten(1))
        return self.classifier(features) if self.training else features


def osnet_x0_25(num_classes=1000, pretrained=True):
    assert not pretrained
    return Small(num_classes)
"""
"""In the place of torchreid's file: this module asks for no more than that name and these weights."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clone")
    source = root / NETWORK_FILE
    source.parent.mkdir(parents=True)
    source.write_text(NETWORK, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def weights(clone: Path) -> Path:
    """Weights for 5 classes, with batch normalisation that changes what goes through it."""
    namespace: dict[str, type[nn.Module]] = {}
    exec(NETWORK, namespace)
    torch.manual_seed(0)
    network = namespace["Small"](5)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, 0, 1)
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    path = clone / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_graph_computes_the_network(clone: Path, weights: Path) -> None:
    """BGR in, RGB inside, normalised, batch normalisation folded, unit rows out."""
    network = load_osnet(clone, weights)
    assert not network.training
    crops = np.random.default_rng(0).integers(0, 256, (3, *INPUT_SIZE_HW, 3), np.uint8)
    pixels = crops[..., ::-1] / 255.0
    normal = (pixels - np.asarray(IMAGENET_MEAN_RGB)) / np.asarray(IMAGENET_STD_RGB)
    with torch.no_grad():
        features = network(torch.from_numpy(normal.transpose(0, 3, 1, 2)).float())
    wanted = functional.normalize(features).numpy()
    model = network_to_onnx(network)
    assert not any(node.op_type == "BatchNormalization" or node.metadata_props for node in model.graph.node)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": crops})[0], wanted, atol=1e-5)
    assert session.run(None, {"images": crops[:1]})[0].shape == (1, 16)


def test_gates_and_the_embedding_layer_are_found(clone: Path, weights: Path) -> None:
    blocks = find_blocks(network_to_onnx(load_osnet(clone, weights)))
    assert [block.name for block in blocks if block.quantised] == ["network.conv1", "network.conv2"]
    assert [block.name for block in blocks if not block.quantised] == ["network.gate (gate)", "network.fc (embedding)"]


def test_a_run_measures_every_row(clone: Path, weights: Path, synthetic_dataset: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    named = ["--torchreid", clone, "--weights", weights, "--data", synthetic_dataset, "--json", figures]
    fewer = ["--calibration-crops", 8, "--max-crops", 30, "--rounds", 2, "--calibrators", "minmax"]
    osnet_quantization.main(args=list(map(str, [*named, *fewer, "--calibrators", "mse"])), standalone_mode=False)
    report = json.loads(figures.read_text(encoding="utf-8"))
    rows = {(row["flavour"], row["calibrator"]): row for row in report["rows"]}
    flavours = [(flavour, calibrator) for flavour in ("int8", "int8-cpu") for calibrator in ("minmax", "mse")]
    assert list(rows) == [("fp32", ""), *flavours]
    plain = rows["fp32", ""]
    assert (plain["map_drop"], plain["top1_agreement"], plain["speed"]) == (0, 1, 1)
    assert plain["min_cosine"] == pytest.approx(1, abs=1e-6)
    assert all(0.9 < rows[name]["mean_cosine"] < 1 for name in flavours)
    assert all(row["ms_a_crop"] > 0 and row["speed_low"] <= row["speed"] <= row["speed_high"] for row in rows.values())
    assert report["images"] <= 30
    assert report["float_blocks"] == ["network.gate (gate)", "network.fc (embedding)"]


def test_what_is_missing_is_named(clone: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--torchreid .* holds no .*osnet.py; clone github.com"):
        load_osnet(tmp_path, weights)
    with pytest.raises(InputError, match=r"--weights .* is not there"):
        load_osnet(clone, tmp_path / "none.pth")


@pytest.mark.parametrize(
    "content", [b"", b"no weights", {"other": torch.zeros(1)}, {"classifier.weight": torch.zeros(2)}]
)
def test_weights_of_something_else_are_refused(clone: Path, tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="holds no weights of OSNet"):
        load_osnet(clone, path)


@pytest.mark.parametrize("source", ["import no_such_library", "def (", "osnet_x1_0 = None"])
def test_another_file_than_torchreids_is_refused(weights: Path, tmp_path: Path, source: str) -> None:
    path = tmp_path / NETWORK_FILE
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    with pytest.raises(InputError, match="is not torchreid's OSNet"):
        load_osnet(tmp_path, weights)
