from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from hamr_edge.cli import main
from hamr_edge.errors import InputError
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.data_choice import DataChoice
from tests.standard_sets import MARKET, write_images, write_market_like
from tests.tiny_dataset import GALLERY, JUNK, QUERIES

HERE, THERE = Path("here"), Path("over there")
TRAINING = "--preset smoke --backbone resnet18 --imgsz 32 16 --stripes 2 --reduced-dim 8 --part-dim 4 --epochs 1 "
TRAINING += "--ids-per-batch 2 --images-per-id 2 --eval-every 1 --device cpu --quiet"


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((HERE, THERE, None, "auto", "auto"), r"either as DATA \(here\) or by --train-on and --test-on, not both"),
        ((HERE, None, THERE, "auto", "auto"), r"either as DATA \(here\)"),
        ((None, HERE, None, "auto", "auto"), "--train-on needs --test-on too; one set for both is named as DATA"),
        ((None, None, HERE, "auto", "auto"), "--test-on needs --train-on too"),
        ((HERE, None, None, "auto", "folders"), "--test-dataset says what --test-on is; without --test-on leave it"),
        ((None, None, None, "folders", "auto"), "--dataset folders says what DATA is; name DATA too"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        DataChoice.from_options(*options)


def test_no_data_is_no_choice() -> None:
    assert DataChoice.from_options(None, None, None, "auto", "auto") is None


@pytest.mark.parametrize(
    ("choice", "typed"),
    [
        (DataChoice(HERE), "here"),
        (DataChoice(THERE, "market1501"), "'over there' --dataset market1501"),
        (DataChoice(HERE, test_on=THERE), "--train-on here --test-on 'over there'"),
        (
            DataChoice(HERE, "market-layout", THERE, "folders"),
            "--train-on here --dataset market-layout --test-on 'over there' --test-dataset folders",
        ),
    ],
)
def test_a_choice_can_be_typed_again(choice: DataChoice, typed: str) -> None:
    assert choice.as_typed() == typed
    assert shlex.split(typed)


def test_cross_domain_takes_training_from_one_and_the_test_from_the_other(
    tiny_dataset: Path, synthetic_dataset: Path
) -> None:
    source, target = DataChoice(synthetic_dataset), DataChoice(tiny_dataset)
    both = DataChoice(synthetic_dataset, test_on=tiny_dataset)
    dataset = both.open()
    assert dataset.name == "data -> tiny"
    assert dataset.train.paths == source.open().train.paths
    assert dataset.query.paths == target.open().query.paths
    assert dataset.gallery.paths == target.open().gallery.paths
    assert dataset.cameras_named
    assert (source.tested, both.tested) == (synthetic_dataset, tiny_dataset)


def test_each_set_has_its_own_kind(tmp_path: Path, tiny_dataset: Path) -> None:
    write_images(tmp_path / "mine", ["train/anna/1.jpg", "train/ben/1.jpg"])
    market = write_market_like(tmp_path / "market1501", MARKET)
    choice = DataChoice(tmp_path / "mine", "folders", market, "market-layout")
    assert choice.open().name == "mine -> market1501"
    assert choice.open().cameras_named
    with pytest.raises(InputError, match="is not the whole market1501"):
        DataChoice(tmp_path / "mine", "folders", market).open()
    with pytest.raises(InputError, match=r"has no bounding_box_train, .*found train"):
        DataChoice(tmp_path / "mine", "market-layout", market, "market-layout").open()


def test_nothing_to_train_on_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["train/-1/1.jpg", "query/a/1.jpg", "gallery/a/2.jpg"])
    with pytest.raises(InputError, match="has no training images, junk apart; a set of folders holds them in train/"):
        DataChoice(tmp_path).open()


def test_train_and_resume_across_domains(
    tiny_dataset: Path, synthetic_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--train-on", synthetic_dataset, "--test-on", tiny_dataset, "--test-dataset", "market-layout"]
    assert run("train", *data, "-o", tmp_path / "run", *TRAINING.split()) == 0
    assert f"-o BUILD --data {tiny_dataset}" in capsys.readouterr().out
    info = load_checkpoint(tmp_path / "run")[1]
    assert info.dataset == "data -> tiny"
    assert (info.scores["queries"], info.scores["gallery"]) == (QUERIES, GALLERY)
    assert run("train", *data, "-o", tmp_path / "run", "--resume", "--quiet", "--device", "cpu") == 0
    assert run("train", tiny_dataset, "-o", tmp_path / "run", "--resume", "--quiet", "--device", "cpu") == 2
    assert "was trained on other images than tiny's" in capsys.readouterr().err


def test_eval_takes_the_kind(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(tiny_dataset, tmp_path / "Market-1501-v15.09.15"))
    file = tmp_path / "scores.json"
    assert run("eval", tiny_artifact, "--data", root, "--quiet") == 2
    assert f"{GALLERY + JUNK} gallery images of 5 identities, expected 19,732 of 751" in capsys.readouterr().err
    assert run("eval", tiny_artifact, "--data", root, "--dataset", "market-layout", "--json", file, "--quiet") == 0
    assert json.loads(file.read_text())["queries"] == QUERIES
    assert run("eval", tiny_artifact, "--data", root, "--dataset", "market", "--quiet") == 2
    assert "'market' is not one of" in capsys.readouterr().err


def test_eval_says_where_no_cameras_are_named(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, ["query/a/1.png", "gallery/b/1.png"])
    for number, image in enumerate(sorted((tiny_dataset / "query").iterdir())[:2]):
        folder = tmp_path / ("query", "gallery")[number] / "a"
        folder.mkdir(exist_ok=True)
        shutil.copy(image, folder / f"{number}.png")
    says = "No file name says a camera: images of the query's own camera count as matches too."
    assert run("eval", tiny_artifact, "--data", tmp_path, "--quiet", "--json", tmp_path / "scores.json") == 0
    assert says in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["cameras_named"] is False
    assert run("eval", tiny_artifact, "--data", tiny_dataset, "--quiet") == 0
    assert says not in capsys.readouterr().out


def test_eval_needs_a_query_and_a_corrupt_one_is_named(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "mine", ["train/anna/1.jpg"])
    assert run("eval", tiny_artifact, "--data", tmp_path / "mine", "--quiet") == 2
    assert "mine cannot be scored: of 0 queries none has an image of its identity" in capsys.readouterr().err
    copy = Path(shutil.copytree(tiny_dataset, tmp_path / "copy"))
    victim = next((copy / "bounding_box_test").glob("0003*"))
    victim.write_bytes(victim.read_bytes()[:-20])
    assert run("eval", tiny_artifact, "--data", copy, "--quiet") == 2
    assert f"{victim} cannot be decoded; delete or replace it" in capsys.readouterr().err
