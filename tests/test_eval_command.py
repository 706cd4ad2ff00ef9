from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import open_backend
from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset, read_crop
from hamr_edge.evaluation import embed_files, evaluate
from hamr_edge.preprocess import stack_crops
from tests.tiny_dataset import GALLERY, QUERIES


def test_scores_are_written_and_shown(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    main(["eval", str(tiny_artifact), "--data", str(tiny_dataset), "--json", str(file), "--device", "cpu", "--quiet"])
    found = json.loads(file.read_text())
    with open_backend(tiny_artifact, "cpu") as backend:
        scores = evaluate(backend, open_dataset(tiny_dataset))
    assert (found["rank1"], found["rank5"], found["rank10"], found["map"], found["minp"]) == (
        scores.rank1, scores.rank5, scores.rank10, scores.map, scores.minp,
    )  # fmt: skip
    assert (found["reranked"], found["ranking_device"]) == (None, "cpu")
    assert scores.map > 0.4  # colours tell people apart
    assert (found["queries"], found["gallery"]) == (QUERIES, GALLERY)
    assert (found["mirror"], found["backend"], found["data"]) == (False, "onnxruntime-cpu", "tiny")
    captured = capsys.readouterr()
    assert f"rank-1 {100 * scores.rank1:.2f} %" in captured.out
    assert f"mAP {100 * scores.map:.2f} %   mINP {100 * scores.minp:.2f} %" in captured.out
    assert "re-ranked" not in captured.out
    assert captured.err == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


def test_reranked_scores_stand_beside_the_plain_ones(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    main(["eval", str(tiny_artifact), "--data", str(tiny_dataset), "--rerank", "--json", str(file), "--quiet"])
    found = json.loads(file.read_text())
    with open_backend(tiny_artifact, "cpu") as backend:
        plain, reranked = (evaluate(backend, open_dataset(tiny_dataset), rerank=rerank) for rerank in (False, True))
    assert plain != reranked
    assert (found["map"], found["reranked"]["map"]) == (plain.map, reranked.map)
    assert set(found["reranked"]) == {"rank1", "rank5", "rank10", "map", "minp", "queries", "gallery"}
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert f"mAP {100 * plain.map:.2f} %" in first
    assert f"mAP {100 * reranked.map:.2f} %" in second
    assert second.endswith("re-ranked")


def test_json_on_stdout_stands_alone(
    tiny_artifact: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["eval", str(tiny_artifact), "--data", str(tiny_dataset), "--json", "-", "--mirror", "--threads", "1"])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mirror"] is True
    assert "query" in captured.err  # progress


def test_mirrored_embeddings_are_those_of_both_sides(tiny_artifact: Path, tiny_dataset: Path) -> None:
    paths = open_dataset(tiny_dataset).query.paths
    with open_backend(tiny_artifact, "cpu") as backend:
        plain, mirrored = embed_files(backend, paths), embed_files(backend, paths, mirror=True)
        crops = stack_crops([read_crop(path) for path in paths], backend.sidecar.input_size_hw)
        both = backend.infer(crops) + backend.infer(np.flip(crops, axis=2))  # left and right change places
    expected = both / np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(mirrored, expected, atol=1e-6)
    assert plain.shape == (QUERIES, 12)
    assert abs(plain - mirrored).max() > 1e-3


def test_a_checkpoint_can_be_scored(checkpoint: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["eval", str(checkpoint), "--data", str(tiny_dataset), "--quiet", "--device", "cpu", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["backend"] == "pytorch-cpu"


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("nowhere.onnx", "{data}", "artifact nowhere.onnx is not there"),
        ("{good}", "nowhere", "data set nowhere is not a folder"),
        ("{data}/query", "{data}", "checkpoint"),
    ],
)
def test_what_is_missing_is_named(
    tiny_artifact: Path,
    tiny_dataset: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    data: str,
    message: str,
) -> None:
    arguments = [part.format(good=tiny_artifact, data=tiny_dataset) for part in (model, "--data", data)]
    with pytest.raises(SystemExit) as caught:
        main(["eval", *arguments, "--quiet"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
