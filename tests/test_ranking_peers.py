from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.benchmarks import ranking_peers as script
from hamr_edge.benchmarks.peer_ranking import Peer, load_fastreid, load_torchreid
from hamr_edge.benchmarks.product_rate import product_rates
from hamr_edge.benchmarks.ranking_agreement import compare_rankings, random_tests
from hamr_edge.benchmarks.ranking_peers import ranking_peers
from hamr_edge.errors import InputError
from hamr_edge.evaluation import EmbeddedTest
from tests.test_ranking import naive_scores
from tests.test_reranking import plain_reranking


def _distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    cosine = 1 - query @ gallery.T
    return cosine if metric == "cosine" else 2 * cosine


def _rank(matrix: np.ndarray, test: EmbeddedTest, cython: bool) -> dict[str, float]:
    labels = [
        list(zip(ids.tolist(), cameras.tolist(), strict=True))
        for ids, cameras in ((test[2], test[4]), (test[3], test[5]))
    ]
    one_hot = np.eye(len(matrix), dtype=np.float32)
    first, precisions, penalties = naive_scores(one_hot, -matrix.T, *labels)
    ranks = {f"rank{k}": float(np.mean(np.array(first) <= k)) for k in (1, 5, 10)}
    return {**ranks, "map": float(np.mean(precisions)), "minp": float(np.mean(penalties))}


def _re_rank(across: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return plain_reranking(np.block([[queries, across], [across.T, gallery]]) ** 2, len(queries), 20, 6, 0.3)


PEER = Peer("plain", "0123abc", ("cosine", "euclidean"), _distances, _rank, _re_rank)
"""The tests' own slow ranking in a peer's place: the clones are not part of the tests."""


def _small_test() -> EmbeddedTest:
    _, test = next(random_tests(np.random.default_rng(0)))
    return EmbeddedTest(*(part[:20] if len(part) == 300 else part[:150] for part in test))


def test_a_plain_ranking_agrees_on_random_embeddings() -> None:
    rows = list(compare_rankings("small", _small_test(), [PEER], python_too=True))
    assert [row.peer for row in rows] == ["plain, Cython", "plain, Python"]
    assert all(difference < 1e-9 for row in rows for difference in row.differences.values())
    assert set(rows[0].differences) == {"rank1", "rank5", "rank10", "map", "minp"}


def test_a_wrong_ranking_does_not_agree() -> None:
    wrong = Peer("wrong", "", ("cosine",), _distances, lambda matrix, test, cython: _rank(-matrix, test, cython), None)
    (row,) = compare_rankings("small", _small_test(), [wrong], python_too=False)
    assert row.differences["map"] > 0.1


def test_random_sets_differ_in_equal_distances() -> None:
    shares = []
    for _, test in random_tests(np.random.default_rng(0)):
        first = np.sort(test.query[0] @ test.gallery.T)
        shares.append(np.mean(first[1:] == first[:-1]))
    assert shares[0] < 0.01
    assert shares[2] > 0.9
    assert shares[0] < shares[1] < shares[2]


def test_the_whole_script_on_given_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features, file = tmp_path / "test.npz", tmp_path / "figures.json"
    np.savez(features, **_small_test()._asdict())
    for loader in ("load_fastreid", "load_torchreid"):
        loaded = lambda clone, build: PEER  # noqa: E731
        loaded.__name__ = loader
        monkeypatch.setattr(script, loader, loaded)
    monkeypatch.setattr(script, "random_tests", lambda rng: [("random", _small_test())])
    monkeypatch.setattr(script, "product_rates", lambda depth, threads: {"numpy": 100.0, "torch": 50.0})
    arguments = ["--fastreid", "a", "--torchreid", "b", "--features", str(features), "--rounds", "3", "--rerank"]
    ranking_peers.main([*arguments, "--all-metrics", "--json", str(file)], standalone_mode=False)
    figures = json.loads(file.read_text())
    assert figures["shape"] == [20, 150, 32]
    assert figures["product_gflop"] == pytest.approx(2 * 20 * 150 * 32 / 1e9)
    assert figures["whole_step"][0]["contestant"] == "hamr-edge"
    assert [row["contestant"] for row in figures["whole_step"]][1:] == ["plain, cosine", "plain, euclidean"]
    assert all(len(row["times_s"]) == 3 for row in figures["whole_step"])
    assert all(row["greatest_distance_gap"] < 1e-5 for row in figures["reranking"][1:])
    assert all(row["differences"]["map"] < 1e-9 for row in figures["agreement"])
    shown = capsys.readouterr().out
    for title in ("Bound:", "From features to scores", "on one distance matrix", "Re-ranked"):
        assert title in shown


@pytest.mark.parametrize(("load", "package"), [(load_fastreid, "fastreid"), (load_torchreid, "torchreid")])
def test_what_is_no_clone_is_named(load: object, package: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"is no clone of {package}"):
        load(tmp_path, tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize(
    "given", [["--model", "m"], ["--data", "d"], ["--features", "f", "--model", "m", "--data", "d"]]
)
def test_features_come_from_one_place(given: list[str]) -> None:
    with pytest.raises(InputError, match="--features, or --model with --data"):
        ranking_peers.main(["--fastreid", "a", "--torchreid", "b", *given], standalone_mode=False)


def test_rates_are_measured_in_a_process_of_their_own() -> None:
    rates = product_rates(4, threads=1)
    assert set(rates) == {"numpy", "torch"}
    assert min(rates.values()) > 0
