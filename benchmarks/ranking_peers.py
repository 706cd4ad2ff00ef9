"""Our ranking against fast-reid's and torchreid's: are the scores equal, and which is faster from features to scores.

Run ``python -m hamr_edge.benchmarks.ranking_peers --help``. OMP_NUM_THREADS and OPENBLAS_NUM_THREADS set the threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.latency import pair_speedup
from hamr_edge.benchmarks.peer_ranking import Peer, load_fastreid, load_torchreid
from hamr_edge.benchmarks.product_rate import product_rates
from hamr_edge.benchmarks.ranking_agreement import (
    compare_rankings,
    random_tests,
    rerank_ours,
    rerank_theirs,
    score_differences,
)
from hamr_edge.benchmarks.ranking_tables import print_ranking_report
from hamr_edge.cli import run_and_exit
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.evaluation import EmbeddedTest, embed_test
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.machine import usable_cores
from hamr_edge.progress import stderr_console, stdout_console
from hamr_edge.ranking import score_retrieval

OURS = "hamr-edge"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--fastreid", type=click.Path(path_type=Path), required=True, help="A clone of JDAI-CV/fast-reid.")
@click.option(
    "--torchreid", type=click.Path(path_type=Path), required=True, help="A clone of KaiyangZhou/deep-person-reid."
)
@click.option("--features", metavar="FILE", help="Embeddings and labels, as --save-features wrote them.")
@click.option("--model", metavar="MODEL", help="Embed --data with this checkpoint or .onnx file.")
@click.option("--data", metavar="DIR", help="Data set in Market-1501's layout, for --model.")
@click.option("--save-features", metavar="FILE", help="Keep what --model embedded, as .npz.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of the timing.")
@click.option("--all-metrics", is_flag=True, help="Time each peer's other distance too.")
@click.option("--no-python", is_flag=True, help="Leave the peers' slow Python ranking out on the given features.")
@click.option("--rerank", is_flag=True, help="Compare re-ranking too; the peers hold several N x N arrays.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_file", metavar="FILE", help="Write the figures as JSON; - is stdout, without text.")
def ranking_peers(
    fastreid: Path,
    torchreid: Path,
    features: str | None,
    model: str | None,
    data: str | None,
    save_features: str | None,
    rounds: int,
    all_metrics: bool,
    no_python: bool,
    rerank: bool,
    seed: int,
    json_file: str | None,
) -> None:
    """Compare ranking with fast-reid's and torchreid's, on random embeddings and on those given.

    Needs torch, Cython and a C compiler.
    """
    if json_file is not None:
        check_json_target(json_file)
    if (model is None) != (data is None) or (features is not None and model is not None):
        raise InputError("give --features, or --model with --data, or none of them for random embeddings alone")
    say = stderr_console().print
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as build:
        peers = []
        for load, clone in ((load_fastreid, fastreid), (load_torchreid, torchreid)):
            (Path(build) / load.__name__).mkdir()
            peers.append(load(clone, Path(build) / load.__name__))
        agreement = [row for name, test in random_tests(rng) for row in compare_rankings(name, test, peers, True)]
        report: dict[str, Any] = {
            "environment": describe_environment(BenchConfig(threads=_torch_threads())),
            "seed": seed,
            "peers": {peer.name: peer.revision for peer in peers},
        }
        test = _given_test(features, model, data, save_features)
        if test is not None:
            say("comparing rankings")
            agreement += compare_rankings("given", test, peers, not no_python)
            report["shape"] = [len(test.query), len(test.gallery), test.query.shape[1]]
            report["product_gflop"] = 2 * len(test.query) * len(test.gallery) * test.query.shape[1] / 1e9
            say("measuring the product's rate")
            counts = sorted({1, usable_cores()})
            report["product_gflops"] = {count: product_rates(test.query.shape[1], count) for count in counts}
            say(f"timing {rounds} rounds")
            report["whole_step"] = _time_whole_step(test, peers, all_metrics, rounds, rng)
            if rerank:
                say("re-ranking")
                report["reranking"] = _compare_reranking(test, peers)
        report["agreement"] = [asdict(row) for row in agreement]
    if json_file is not None:
        write_json(report, json_file)
    if json_file != STDOUT:
        print_ranking_report(report, stdout_console())


def _given_test(
    features: str | None, model: str | None, data: str | None, save_features: str | None
) -> EmbeddedTest | None:
    if features is not None:
        try:
            with np.load(features) as arrays:
                return EmbeddedTest(*(arrays[name] for name in EmbeddedTest._fields))
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"--features {features} is not what --save-features writes: {error}") from error
    if model is None or data is None:
        return None
    with open_backend(model) as backend:
        test = embed_test(backend, open_dataset(data), quiet=False)
    if save_features is not None:
        np.savez(save_features, **test._asdict())
    return test


def _time_whole_step(
    test: EmbeddedTest, peers: Sequence[Peer], all_metrics: bool, rounds: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """From features to scores, every contestant once a round in random order: wall time, and the CPU time of it."""
    contestants: dict[str, Callable[[], dict[str, Any]]] = {OURS: lambda: asdict(score_retrieval(*test))}
    for peer in peers:
        for metric in peer.metrics[: None if all_metrics else 1]:
            contestants[f"{peer.name}, {metric}"] = partial(_whole_step, peer, metric, test)
    times_s, cpu_s = np.empty((2, rounds, len(contestants)))
    names, scores = list(contestants), {}
    for number in range(rounds):
        for index in rng.permutation(len(names)).tolist():
            start, cpu_start = time.perf_counter(), time.process_time()
            scores[names[index]] = contestants[names[index]]()
            times_s[number, index] = time.perf_counter() - start
            cpu_s[number, index] = time.process_time() - cpu_start
    return [
        {
            "contestant": name,
            "times_s": times_s[:, index].tolist(),
            "median_s": float(np.median(times_s[:, index])),
            "cpu_median_s": float(np.median(cpu_s[:, index])),
            "ours_is_faster_by": asdict(pair_speedup(times_s[:, index], times_s[:, 0])),
            "scores": scores[name],
            "differences": score_differences(scores[OURS], scores[name]),
        }
        for index, name in enumerate(names)
    ]


def _whole_step(peer: Peer, metric: str, test: EmbeddedTest) -> dict[str, float]:
    return peer.rank(peer.build_distances(test.query, test.gallery, metric), test, True)


def _compare_reranking(test: EmbeddedTest, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Final distances and scores by each peer's re-ranking against ours; timed once, so a rough figure."""
    start = time.perf_counter()
    scores = asdict(score_retrieval(*test, rerank=True))
    rows = [{"contestant": OURS, "seconds": time.perf_counter() - start, "scores": scores}]
    ours = rerank_ours(test)
    for peer in peers:
        start = time.perf_counter()
        distances = rerank_theirs(peer, test)
        found = peer.rank(distances, test, True)
        seconds = time.perf_counter() - start
        gaps = np.abs(distances - ours)
        rows.append(
            {
                "contestant": peer.name,
                "seconds": seconds,
                "scores": found,
                "differences": score_differences(scores, found),
                "greatest_distance_gap": float(gaps.max()),
                "share_of_distances_beyond_1e-5": float(np.mean(gaps > 1e-5)),
            }
        )
    return rows


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    run_and_exit(ranking_peers, "python -m hamr_edge.benchmarks.ranking_peers")
