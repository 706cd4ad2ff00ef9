from __future__ import annotations

import base64
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.evaluation import evaluate
from hamr_edge.trainer.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from hamr_edge.trainer.figures import FiguresConfig, make_figures
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.torch_backend import TorchBackend
from tests.tiny_dataset import CAMERAS

PICTURES = {"retrieval.png", "activation.png", "cmc.png", "curves.png"}


@pytest.fixture(scope="module")
def wide_baseline(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A checkpoint of another input size and embedding than the tiny one, without a log."""
    config = load_checkpoint(checkpoint)[1].config
    network = replace(config.network, input_size_hw=(64, 32), stripes=1, part_dim=6)
    folder = tmp_path_factory.mktemp("baseline") / "wide"
    folder.mkdir()
    torch.manual_seed(1)
    save_checkpoint(folder, Hamr(network, 5), CheckpointInfo(replace(config, network=network), 5, "nothing"))
    return folder


class _Page(HTMLParser):
    """Checks that tags are balanced and collects what a reader gets."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        names = ("src", "href", "srcset", "data", "action", "poster", "background")
        self.addresses += [str(value) for name, value in attributes if name in names]
        assert tag not in ("script", "link", "iframe", "object", "base")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text.append(data.strip())


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["figures", *map(str, arguments), "--quiet", "--device", "cpu"])
    return int(caught.value.code or 0)


def test_figures_of_a_model_and_a_baseline(
    checkpoint: Path, wide_baseline: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "<b>$x_1$&"  # a name that must not become HTML or a formula
    shutil.copytree(checkpoint, model)
    output = tmp_path / "figs"
    arguments = [
        "figures",
        str(model),
        "--data",
        str(tiny_dataset),
        "-o",
        str(output),
        "--baseline",
        str(wide_baseline),
    ]
    main([*arguments, "--quiet", "--device", "cpu"])
    out, err = capsys.readouterr()
    assert {path.name for path in output.iterdir()} == {*PICTURES, "index.html"}
    html = (output / "index.html").read_text("utf-8")
    page = _Page(html)
    assert not re.search(r"https?:|//|url\(|@import|<b>", re.sub("base64,[A-Za-z0-9+/=]+", "", html))
    assert len(page.addresses) == len(page.images) == 4
    drawn = {base64.b64decode(address.removeprefix("data:image/png;base64,")) for address in page.addresses}
    assert drawn == {(output / name).read_bytes() for name in PICTURES}
    for image in page.images:
        assert len(image["alt"] or "") > 20
        assert int(image["width"] or 0) > 200
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    words = " ".join(page.text)
    for said in ("<b>$x_1$&", "figure 7 of", "figure 8 of", "input size hw", "64 x 32", "rank-1", "mINP"):
        assert said in words
    assert "wide has no training log" in words
    assert "wide has no training log" in err
    assert "model (<b>$x_1$&): rank-1" in out
    with TorchBackend(checkpoint, "cpu") as backend:
        assert f"mAP {100 * evaluate(backend, open_dataset(tiny_dataset)).map:.2f} %" in out


def test_what_the_protocol_leaves_out_is_in_no_figure(checkpoint: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    name = dataset.query.paths[4].name
    identity, camera = int(dataset.query.identities[4]), int(dataset.query.cameras[4])
    main(["figures", str(checkpoint), "--data", str(tiny_dataset), "-o", str(tmp_path), "--query", name, "--top", "50",
          "--quiet", "--device", "cpu", "--map", "fused", "--mirror"])  # fmt: skip
    cells = _Page((tmp_path / "index.html").read_text("utf-8")).text
    shown = {path.name for path in dataset.gallery.paths if path.name in cells}
    counts = (dataset.gallery.identities != -1) & ~(
        (dataset.gallery.identities == identity) & (dataset.gallery.cameras == camera)
    )
    assert shown == {path.name for path, counted in zip(dataset.gallery.paths, counts, strict=True) if counted}
    assert cells.count("right") == 2 * (len(CAMERAS) - 1)
    assert cells.count("wrong") == len(shown) - 2 * (len(CAMERAS) - 1)


def test_a_run_without_a_log_gets_no_curves_and_no_old_ones(
    wide_baseline: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "curves.png").write_bytes(b"another model's")
    (tmp_path / "notes.txt").write_text("the user's")
    main(["figures", str(wide_baseline), "--data", str(tiny_dataset), "-o", str(tmp_path), "--queries", "1",
          "--top", "1", "--quiet", "--map", "backbone"])  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {*PICTURES, "index.html", "notes.txt"} - {"curves.png"}
    assert "no curves of the model" in capsys.readouterr().err


def test_a_query_that_cannot_be_scored_is_shown_as_such(checkpoint: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    for path in (data / "bounding_box_test").glob("0003_c[23]*"):
        path.unlink()
    dataset = open_dataset(data)
    lone = next(path.name for path in dataset.query.paths if path.name.startswith("0003_c1"))
    config = FiguresConfig(names=(lone,), device="cpu")
    made = make_figures(checkpoint, dataset, tmp_path / "figs", config=config, quiet=True)
    assert "not scored" in made.files[0].read_text("utf-8")
    assert made.rankings[0].scores.queries == len(dataset.query) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--query", "0003_c1s1_000001_01.png"), "such as 0003_c1s1_000001_00.png"),
        (("--query", "0003_c1s1_000001_00.png", "--queries", "2"), "leave out --queries"),
        (("--queries", "0"), "queries must be in 1..40, got 0"),
        (("--top", "51"), "top must be in 1..50"),
        (("--baseline", "{data}"), "is not a checkpoint"),
        (("--baseline", "nowhere"), "nowhere is not a checkpoint"),
        (("--map", "jet"), "'jet' is not one of"),
        (("-o", "{data}/query/0003_c1s1_000001_00.png"), "output folder"),
    ],
)
def test_what_is_wrong_is_named_before_the_work(
    checkpoint: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    given_options = [option.format(data=tiny_dataset) for option in options]
    assert run(checkpoint, "--data", tiny_dataset, "-o", tmp_path, *given_options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_error_late_in_the_work_leaves_the_folder_as_it_was(
    checkpoint: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "data", tmp_path / "figs"
    shutil.copytree(tiny_dataset, data)
    output.mkdir()
    (output / "index.html").write_text("old")
    broken = data / "bounding_box_test" / "0003_c1s1_000002_00.png"
    broken.write_bytes(b"not an image")
    assert run(checkpoint, "--data", data, "-o", output) == 2
    assert broken.name in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["index.html"]
    assert (output / "index.html").read_text() == "old"


def test_without_matplotlib_the_extra_is_named(
    checkpoint: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(checkpoint, "--data", tiny_dataset, "-o", tmp_path / "figs") == 4
    assert "pip install 'hamr-edge[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "figs").exists()
