from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.calibration.blocks import Block, find_blocks, level_sizes_of
from hamr_edge.calibration.sites import find_sites
from hamr_edge.errors import InputError
from hamr_edge.export.onnx_export import export_onnx
from hamr_edge.trainer.heads import level_sizes
from hamr_edge.trainer.network import Hamr, NetworkConfig

CONFIG = NetworkConfig("resnet18", (96, 32), stripes=3, reduced_dim=8, part_dim=4)


def hamr_model(path: Path, config: NetworkConfig) -> onnx.ModelProto:
    torch.manual_seed(0)
    export_onnx(Hamr(config, 4), path, 8)
    return onnx.load(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return hamr_model(tmp_path_factory.mktemp("blocks") / "model.onnx", CONFIG)


def names(blocks: tuple[Block, ...], quantised: bool) -> list[str]:
    return [block.name for block in blocks if block.quantised is quantised]


def test_the_blocks_of_hamr(model: onnx.ModelProto) -> None:
    blocks = find_blocks(model, (1, 2, 3))
    heads = [f"heads, level {level}" for level in (1, 2, 3)]
    assert names(blocks, True) == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", *heads]
    assert set(names(blocks, False)) == {"SAM", "CAM", "embedding layer"}
    by_name = {block.name: block for block in blocks}
    assert [len(by_name[name].sites) for name in heads] == [1, 2, 3]
    assert by_name["stem"].weights == 64 * 3 * 7 * 7
    assert by_name["heads, level 3"].weights == 3 * by_name["heads, level 1"].weights
    assert by_name["heads, level 2"].sites == ("reduce[1]", "reduce[2]")


@pytest.mark.parametrize("sizes", [(1, 2, 3), ()])
def test_every_site_is_in_one_block(model: onnx.ModelProto, sizes: tuple[int, ...]) -> None:
    blocks = find_blocks(model, sizes)
    members = [site for block in blocks for site in block.sites]
    assert sorted(members) == sorted({site.name for site in find_sites(model)})
    assert len({block.name for block in blocks}) == len(blocks)
    roles = {site.name: site.role for site in find_sites(model)}
    assert all((roles[site] == "product") is block.quantised for block in blocks for site in block.sites)


def test_levels_of_single_stripes(tmp_path: Path) -> None:
    blocks = find_blocks(hamr_model(tmp_path / "model.onnx", replace(CONFIG, partition="pcb")), (3,))
    assert [block.name for block in blocks if block.name.startswith("heads")] == ["heads, level 1"]
    assert [len(block.sites) for block in blocks if block.name.startswith("heads")] == [3]


def test_settings_of_another_network_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="the network has 6 parts, its settings have 3"):
        find_blocks(model, (3,))


@pytest.mark.parametrize("partition", ["mgo", "pcb"])
@pytest.mark.parametrize("stripes", [1, 6])
def test_level_sizes_are_the_trainers(stripes: int, partition: str) -> None:
    settings = {"stripes": stripes, "partition": partition}
    assert list(level_sizes_of(settings)) == level_sizes(stripes, partition)  # type: ignore[arg-type]
    assert level_sizes_of({"stripes": 2}) == (1, 2)


def test_another_network_goes_by_the_words_of_its_weights() -> None:
    """A weight that a gate and a product share is one site, and stays in float, whichever comes first."""
    weights = {"net.stem.w": (4, 3, 1, 1), "net.stem.gate.w": (4, 4, 1, 1), "net.shared.w": (4, 4, 1, 1)}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "net.stem.w"], ["a"]),
        helper.make_node("Conv", ["a", "net.stem.gate.w"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Mul", ["a", "c"], ["d"]),
        helper.make_node("Conv", ["d", "net.shared.w"], ["e"]),
        helper.make_node("Conv", ["e", "net.shared.w"], ["f"]),
        helper.make_node("Sigmoid", ["f"], ["g"]),
        helper.make_node("Mul", ["e", "g"], ["h"]),
        helper.make_node("Conv", ["h", "net.stem.gate.w"], ["i"]),
        helper.make_node("Flatten", ["i"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["embeddings"]),
    ]
    constants = {**weights, "fc.weight": (16, 2)}
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 2, 2, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()],
    )
    graph.node.insert(0, helper.make_node("Constant", [], ["fc.weight"], value=graph.initializer.pop()))
    blocks = find_blocks(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert [(block.name, block.sites, block.quantised) for block in blocks] == [
        ("net.stem", ("net.stem.w",), True),
        ("net.stem (gate)", ("net.stem.gate.w",), False),
        ("net.shared (gate)", ("net.shared.w",), False),
        ("fc.weight (embedding)", ("fc.weight",), False),
    ]
