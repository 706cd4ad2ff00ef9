from __future__ import annotations

from dataclasses import replace

import pytest

from hamr_edge import InputError, Sidecar
from hamr_edge.benchmarks import BenchConfig
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.latency import Latency, Speedup
from hamr_edge.benchmarks.parity import Parity
from hamr_edge.benchmarks.verdict import (
    DEFAULT_BUDGETS,
    budgets_of,
    judge_consistency,
    judge_parity,
    judge_source,
    judge_speed,
)
from hamr_edge.engine_record import EngineRecord
from hamr_edge.ranking import RetrievalScores

SCORES = RetrievalScores(rank1=0.72, rank5=0.9, rank10=0.95, map=0.545, minp=0.25, queries=264, gallery=1000)
GOOD = Parity(
    images=1264,
    not_finite=0,
    max_norm_error=1e-7,
    min_cosine=1.0,
    p01_cosine=1.0,
    mean_cosine=1.0,
    worst_crop="query/a.jpg",
    top1_agreement=1.0,
    overlap_at_10=1.0,
    rank1=0.72,
    rank5=0.9,
    rank10=0.95,
    map=0.545,
    queries=264,
    rank1_delta=0.0,
    map_delta=0.0,
)


def _sidecar(own: str, source: str) -> Sidecar:
    return Sidecar(own, (32, 16), 12, 8, "fp32", source)


def _judge(parity: Parity, precision: str) -> list[str]:
    return list(judge_parity(parity, SCORES, DEFAULT_BUDGETS[precision], precision))


@pytest.mark.parametrize(("allowed", "passes"), [(0.3, True), (0.0, False)])
def test_one_query_is_within_every_rank1_budget_above_0(allowed: float, passes: bool) -> None:
    one_query_less = replace(GOOD, rank1=0.72 - 1 / 264)
    budgets = replace(DEFAULT_BUDGETS["int8"], max_rank1_drop=allowed)
    assert (not list(judge_parity(one_query_less, SCORES, budgets, "int8"))) == passes


@pytest.mark.parametrize("precision", DEFAULT_BUDGETS)
def test_no_loss_passes(precision: str) -> None:
    assert _judge(GOOD, precision) == []


@pytest.mark.parametrize(
    ("precision", "worse", "message"),
    [
        ("fp32", {"min_cosine": 0.9998}, "cosine of query/a.jpg to the reference is 0.999800, below the 0.9999"),
        ("fp16", {"p01_cosine": 0.9989}, "1st percentile of the cosine to the reference is 0.998900, below the 0.999"),
        ("int8", {"p01_cosine": 0.979}, "the worst of 1264 crops is query/a.jpg"),
        ("int8-cpu", {"p01_cosine": 0.979}, "--p01-cosine"),
        ("fp32", {"rank1": 0.7122}, "rank-1 fell 0.78 points, from 72.00 to 71.22 % (264 queries, one is 0.38 points)"),
        ("fp16", {"map": 0.5435}, "mAP fell 0.15 points, from 54.50 to 54.35 %"),
        ("int8", {"map": 0.5395}, "int8 may lose 0.5 (--max-map-drop)"),
        ("int8", {"rank1": 0.7165, "queries": 3368}, "int8 may lose 0.3 (--max-rank1-drop)"),
        ("int8", {"not_finite": 3}, "embeddings of 3 of 1264 crops hold NaN or infinity"),
        ("fp16", {"max_norm_error": 0.1}, "not of unit L2 norm: one is 0.1000 away"),
    ],
)
def test_a_missed_budget_is_one_sentence(precision: str, worse: dict[str, float], message: str) -> None:
    failures = _judge(replace(GOOD, **worse), precision)  # type: ignore[arg-type]
    assert len(failures) == 1
    assert message in failures[0]


@pytest.mark.parametrize(
    ("precision", "kept"),
    [
        ("fp32", {"min_cosine": 0.9999, "rank1": 0.719, "map": 0.544}),
        ("fp16", {"min_cosine": 0.9, "p01_cosine": 0.999}),
        ("int8", {"min_cosine": 0.5, "p01_cosine": 0.98, "map": 0.54, "rank1": 0.717}),
        ("int8", {"rank1": 0.8, "map": 0.6}),
    ],
)
def test_a_budget_that_is_just_kept_passes(precision: str, kept: dict[str, float]) -> None:
    assert _judge(replace(GOOD, **kept), precision) == []  # type: ignore[arg-type]


def test_settings_replace_budgets() -> None:
    config = BenchConfig(min_cosine=0.9, max_map_drop=0.0, min_speedup=1.5)
    budgets = budgets_of("int8", config)
    assert (budgets.min_cosine, budgets.p01_cosine, budgets.max_map_drop, budgets.min_speedup) == (0.9, 0.98, 0.0, 1.5)
    assert budgets_of("int3", BenchConfig()) == DEFAULT_BUDGETS["fp32"]


def test_an_artifact_of_another_checkpoint_fails() -> None:
    reference = _sidecar("weights", "weights")
    assert list(judge_source(_sidecar("a", "weights"), reference, [])) == []
    (failure,) = judge_source(_sidecar("a", "b" * 64), reference, [])
    assert "another checkpoint: its sidecar names source bbbbbbbbbbbb..." in failure


def test_an_engine_is_followed_to_its_onnx() -> None:
    reference, onnx, engine = _sidecar("weights", "weights"), _sidecar("onnx", "weights"), _sidecar("engine", "onnx")
    assert list(judge_source(engine, reference, [onnx, engine])) == []
    assert len(list(judge_source(engine, reference, [engine]))) == 1
    assert len(list(judge_source(_sidecar("x", "y"), reference, [_sidecar("x", "y"), _sidecar("y", "x")]))) == 1


def test_an_engine_alone_names_its_checkpoint() -> None:
    profile = {"images": ((1, 2, 2, 3),) * 3}
    record = EngineRecord(
        "tensorrt", "10.3.0", "8.7", "linux", "aarch64", profile, "model.fp16.onnx", checkpoint_sha256="weights"
    )
    engine = replace(_sidecar("engine", "onnx"), engine=record)
    assert list(judge_source(engine, _sidecar("weights", "weights"), [engine])) == []
    assert len(list(judge_source(engine, _sidecar("others", "others"), [engine]))) == 1


def test_mixed_rows_and_slowness_are_sentences() -> None:
    mixed = BatchConsistency(images=32, batches=(1, 8), min_cosine=0.7, worst_crop="query/a.jpg", worst_batch=8)
    (failure,) = judge_consistency(mixed, DEFAULT_BUDGETS["fp32"])
    assert "rows of a batch are mixed: query/a.jpg in a batch of 8 has cosine 0.700000" in failure
    latency = Latency(1, 5, 5, 5, 5, 5, 200, 10, Speedup(1.2, 1.1, 1.3))
    assert list(judge_speed([latency], DEFAULT_BUDGETS["fp32"])) == []
    (failure,) = judge_speed([latency], budgets_of("fp32", BenchConfig(min_speedup=2)))
    assert failure == "batch 1: 1.20 x the reference's speed (1.10 to 1.30), below 2 (--min-speedup)"


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"batches": ()}, "--batch"), ({"batches": (0,)}, "--batch"), ({"batches": (1, 1)}, "--batch"),
        ({"seconds": -1.0}, "--seconds"), ({"seconds": float("inf")}, "--seconds"), ({"min_rounds": 0}, "--min-rounds"),
        ({"warmup_rounds": -1}, "--warmup-rounds"), ({"seed": -1}, "--seed"), ({"max_crops": 1}, "--max-crops"),
        ({"threads": 0}, "--threads"),
        ({"min_cosine": 1.1}, "--min-cosine"), ({"p01_cosine": float("nan")}, "--p01-cosine"),
        ({"max_map_drop": -0.1}, "--max-map-drop"), ({"max_rank1_drop": 101.0}, "--max-rank1-drop"),
        ({"min_speedup": -1.0}, "--min-speedup"),
    ],
)  # fmt: skip
def test_a_wrong_setting_names_its_option(wrong: dict, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must"):
        BenchConfig(**wrong)
