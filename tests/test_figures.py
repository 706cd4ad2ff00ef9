from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hamr_edge.dataset import open_dataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.preprocess import stack_crops
from hamr_edge.ranked_list import RankedList
from hamr_edge.trainer.activation_figure import MappedImage, draw_activation
from hamr_edge.trainer.activation_maps import activation_maps
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.curves_figure import draw_cmc, draw_curves, logged_columns
from hamr_edge.trainer.figure_canvas import DPI, RIGHT_COLOUR, WRONG_COLOUR
from hamr_edge.trainer.network import Hamr, NetworkConfig
from hamr_edge.trainer.retrieval_figure import CELL_HEIGHT, CELL_WIDTH, RetrievalRow, cell_left, draw_retrieval
from hamr_edge.trainer.torch_backend import TorchBackend
from hamr_edge.trainer.training_log import read_training_log


def pixels(png: bytes) -> np.ndarray:
    """(H, W, 3) RGB."""
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def of_colour(image: np.ndarray, colour: str) -> np.ndarray:
    return (image == [int(colour[place : place + 2], 16) for place in (1, 3, 5)]).all(axis=2)


def test_right_matches_are_framed_green_and_wrong_ones_dashed_red(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    right = np.asarray([True, False, False, True, False])
    ranked = RankedList(np.arange(5), np.linspace(0.9, 0.5, 5), right, 0.7, 1, 0, 2, 0)
    image = pixels(draw_retrieval([RetrievalRow(0, ranked, "a query")], dataset.query, dataset.gallery))
    for column in range(6):
        left, end = (round(DPI * (cell_left(column) + side)) for side in (-0.03, CELL_WIDTH + 0.03))
        picture = image[: round(DPI * (0.41 + CELL_HEIGHT)), left:end]  # above the caption
        green, red = of_colour(picture, RIGHT_COLOUR), of_colour(picture, WRONG_COLOUR)
        if column == 0:
            assert not green.any()
            assert not red.any()
            continue
        drawn, other = (green, red) if right[column - 1] else (red, green)
        assert not other.any()
        height, width = np.ptp(np.flatnonzero(drawn.any(1))), np.ptp(np.flatnonzero(drawn.any(0)))
        assert (height, width) == pytest.approx((DPI * CELL_HEIGHT, DPI * CELL_WIDTH), abs=8)
        side = drawn[:, np.flatnonzero(drawn.any(0))[1]]  # the left line of the frame
        assert (side.sum() > 0.97 * height) if right[column - 1] else (0.4 < side.sum() / height < 0.85)


def test_long_titles_wrap_instead_of_leaving_the_figure(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    ranked = RankedList(np.arange(2), np.ones(2), np.ones(2, np.bool_), 1.0, 1, 0, 2, 0)
    sizes = []
    for title in ("short", "words " * 30):
        image = pixels(draw_retrieval([RetrievalRow(0, ranked, title)], dataset.query, dataset.gallery))
        assert (image[:, -8:] == 255).all()
        sizes.append(image.shape)
    assert sizes[0][1] == sizes[1][1]
    assert sizes[0][0] < sizes[1][0]


def test_activation_maps_are_the_energy_of_the_named_map(checkpoint: Path, tiny_dataset: Path) -> None:
    network = load_checkpoint(checkpoint)[0]
    paths = open_dataset(tiny_dataset).gallery.paths[:20]
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        network.backbone.layer4.register_forward_hook(lambda *call: seen.update(backbone=call[2])),
        network.heads.register_forward_pre_hook(lambda _, inputs: seen.update(pools=inputs[0])),
    ]
    maps = {source: activation_maps(network, paths, source) for source in ("attended", "backbone", "fused")}
    with TorchBackend.of_network(network, torch.device("cpu")) as backend:
        crops = stack_crops([read_crop(path) for path in paths], backend.sidecar.input_size_hw)
        backend.infer(crops)
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        seen["fused"] = network.fuse(normalise(torch.from_numpy(crops)))
        torch.testing.assert_close(network.heads.pool(seen["fused"]), seen["pools"])  # the map that the heads pool
    seen["attended"] = seen["fused"][:, -seen["backbone"].shape[1] :]
    for source, found in maps.items():
        energy = (seen[source].double() ** 2).sum(1).numpy()
        np.testing.assert_allclose(found, energy / energy.mean((1, 2), keepdims=True), rtol=1e-3, atol=1e-4)
        assert found.shape == (20, 2, 1)
    assert abs(maps["attended"] - maps["backbone"]).max() > 1e-3
    assert abs(maps["attended"] - maps["fused"]).max() > 1e-3


def test_activation_maps_of_a_network_without_stage_4_are_of_its_last_stage(tiny_dataset: Path) -> None:
    config = NetworkConfig("resnet18", (32, 32), stripes=1, part_dim=4, stages=(1, 2), attention="cat+s+c")
    torch.manual_seed(0)
    network = Hamr(config, 3).eval()
    paths = open_dataset(tiny_dataset).query.paths[:2]
    images = normalise(torch.from_numpy(stack_crops([read_crop(path) for path in paths], config.input_size_hw)))
    with torch.inference_mode():
        stage_2, fused = network.backbone(images)[1].square().sum(1), network.fuse(images)
    attended = fused[:, 64:].square().sum(1)  # stage 1 has 64 channels
    for source, energy in (("backbone", stage_2), ("attended", attended)):
        found = activation_maps(network, paths, source)
        np.testing.assert_allclose(found, energy / energy.mean((1, 2), keepdim=True), rtol=1e-4, atol=1e-5)


def test_activation_is_bright_where_the_map_is_high_on_one_scale_for_all(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    assert cv2.imwrite(str(path), np.full((128, 64, 3), 128, np.uint8))
    peaked = np.zeros((4, 2), np.float32)
    peaked[0] = 4  # the upper quarter
    image = pixels(draw_activation([MappedImage(path, "words", (peaked, np.ones((8, 4), np.float32)))], ["a", "b"], 4))
    image = image[round(0.4 * DPI) : round(1.85 * DPI)].astype(int).sum(2)
    model, baseline = (image[:, round(left * DPI)] for left in (0.15 + 0.81 + 0.4, 0.15 + 1.62 + 0.4))
    assert model[5] > 1.5 * model[-20]  # yellow above, little changed grey below
    assert np.ptp(baseline) == 0
    assert model[-20] != baseline[5]
    assert model[5] > baseline[5]


def test_curves_pass_over_what_was_not_logged(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss,map,wait\n1,4.5,,0.1\n2,3.5,0.25,0.2\n3,3.0,,\n")
    log = read_training_log(tmp_path / "log.csv")
    assert log["epoch"] == [1, 2, 3]
    assert np.isnan(log["map"]).tolist() == [True, False, True]
    assert logged_columns({"a": log}, ["rank1", "map", "loss"]) == ["map", "loss"]
    some = pixels(draw_curves({"a run": log}))
    whole = {name: [1.0, 2.0, 3.0] for name in ("loss", "learning_rate", "rank1", "images_per_s")}
    every = pixels(draw_curves({"_odd $name": {**log, **whole}, "b": {"epoch": [1.0], "loss": [2.0]}}))
    assert some.shape[1] == every.shape[1]
    assert some.shape[0] < 0.6 * every.shape[0]  # one row of panels instead of two
    with pytest.raises(InputError, match="no value to draw"):
        draw_curves({"a": {"epoch": [1.0]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no epochs"),
        ("epoch,loss\n", "has no epochs"),
        ("loss\n1\n", "has no epochs"),
        ("epoch,loss\n1,2\n2,much\n", "line 3: loss is 'much'"),
        ("epoch,loss\n1\n", None),  # a line cut short
    ],
)
def test_a_broken_log_is_named(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "log.csv").write_text(text)
    if message is None:
        assert np.isnan(read_training_log(tmp_path / "log.csv")["loss"]).all()
    else:
        with pytest.raises(InputError, match=message):
            read_training_log(tmp_path / "log.csv")


def test_the_same_curve_gives_the_same_bytes() -> None:
    curves = {"_$a": [0.5, 0.75, 1.0]}
    assert draw_cmc(curves) == draw_cmc(curves)
