from __future__ import annotations

from dataclasses import replace

import pytest

from hamr_edge import InputError, Sidecar
from hamr_edge.benchmarks import BenchConfig
from hamr_edge.benchmarks.budgets import BUDGET_NAMES, DEFAULT_BUDGETS, budgets_of
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.cross_gallery import CrossGallery
from hamr_edge.benchmarks.latency import Latency, Speedup
from hamr_edge.benchmarks.match_threshold import MatchThreshold
from hamr_edge.benchmarks.parity import Parity
from hamr_edge.benchmarks.separation import Separation
from hamr_edge.benchmarks.verdict import (
    doubts_of_parity,
    doubts_of_reference,
    judge_consistency,
    judge_cross_gallery,
    judge_parity,
    judge_separation,
    judge_source,
    judge_speed,
    judge_threshold,
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
    minp=0.25,
    queries=264,
    rank1_delta=0.0,
    rank5_delta=0.0,
    rank10_delta=0.0,
    map_delta=0.0,
    minp_delta=0.0,
    rank1_interval=(0.0, 0.0),
    map_interval=(0.0, 0.0),
)


def _sidecar(own: str, source: str) -> Sidecar:
    return Sidecar(own, (32, 16), 12, 8, "fp32", source)


def _judge(parity: Parity, precision: str) -> list[str]:
    return list(judge_parity(parity, SCORES, DEFAULT_BUDGETS[precision], precision))


@pytest.mark.parametrize(("allowed", "passes"), [(0.3, True), (0.0, False)])
def test_one_query_is_within_every_rank1_budget_above_0(allowed: float, passes: bool) -> None:
    one_query_less = replace(GOOD, rank1=0.72 - 1 / 264)
    budgets = replace(DEFAULT_BUDGETS["int8"], rank1=allowed)
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
        ("int8-cpu", {"p01_cosine": 0.979}, "--budget p01-cosine"),
        ("fp32", {"rank1": 0.7122}, "rank-1 fell 0.78 points, from 72.00 to 71.22 % (264 queries, one is 0.38 points"),
        ("fp16", {"map": 0.5435}, "mAP fell 0.15 points, from 54.50 to 54.35 %"),
        ("int8", {"map": 0.5395}, "int8 may lose 0.5 (--budget map)"),
        ("int8", {"rank1": 0.7165, "queries": 3368}, "int8 may lose 0.3 (--budget rank1)"),
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


def test_what_is_asked_replaces_a_default() -> None:
    asked = ("cosine=0.9", "map=0", "int8:speedup=1.5", "int8:map=0.25", "p01-cosine=none")
    budgets = budgets_of("int8", asked)
    assert (budgets.cosine, budgets.p01_cosine, budgets.map, budgets.speedup) == (0.9, None, 0.25, 1.5)
    assert (budgets_of("fp16", asked).map, budgets_of("fp16", asked).speedup) == (0, None)
    assert budgets_of("int3") == DEFAULT_BUDGETS["fp32"]


@pytest.mark.parametrize("name", BUDGET_NAMES)
def test_every_budget_can_be_asked_for(name: str) -> None:
    asked = budgets_of("fp32", (f"{name}=0.75",))
    assert getattr(asked, name.replace("-", "_")) == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("map", "must be NAME=VALUE"),
        ("recall=1", "'recall' is none; expected one of cosine, p01-cosine, map"),
        ("int4:map=1", "'int4' is no precision; expected one of fp32"),
        ("map=lots", "map must be a number in 0..100, or none"),
        ("map=-0.1", "in 0..100"),
        ("cosine=1.1", "in -1..1"),
        ("p01-cosine=nan", "in -1..1"),
        ("speedup=inf", "in 0..inf"),
    ],
)
def test_a_budget_that_is_none_says_so(text: str, message: str) -> None:
    with pytest.raises(InputError, match="--budget") as caught:
        BenchConfig(budgets=("map=1", text))
    assert message in str(caught.value)


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
    assert "below 0.9999 (--budget batch-cosine)" in failure
    assert list(judge_consistency(mixed, budgets_of("fp32", ("batch-cosine=none",)))) == []
    latency = Latency(1, 5, 5, 5, 5, 5, 200, 10, 0.01, Speedup(1.2, 1.1, 1.3, 1.18, 1.22))
    assert list(judge_speed([latency], DEFAULT_BUDGETS["fp32"])) == []
    (failure,) = judge_speed([latency], budgets_of("fp32", ("speedup=2",)))
    assert failure == ("batch 1: 1.20 x the reference's speed (95 % interval 1.18 to 1.22), below 2 (--budget speedup)")


def test_people_who_come_out_alike_are_a_sentence() -> None:
    reference = Separation(same=0.7, different=0.2, d_prime=3.0)
    assert list(judge_separation(replace(reference, d_prime=2.5), reference, DEFAULT_BUDGETS["int8"])) == []
    (failure,) = judge_separation(Separation(0.99, 0.97, 1.5), reference, DEFAULT_BUDGETS["int8"])
    assert "people come out alike: the mean cosine of one person's crops is 0.990, of others 0.970" in failure
    assert "0.50 of the reference's 3.00, below 0.8 (--budget separation)" in failure
    assert list(judge_separation(reference, replace(reference, d_prime=0.0), DEFAULT_BUDGETS["int8"])) == []
    assert list(doubts_of_reference(reference)) == []
    assert "hardly tells people apart" in next(doubts_of_reference(replace(reference, d_prime=0.4)))


def test_a_gallery_of_the_reference_is_judged_where_asked() -> None:
    cross = CrossGallery(rank1=0.70, map=0.53, rank1_delta=-0.02, map_delta=-0.015)
    assert list(judge_cross_gallery(cross, SCORES, DEFAULT_BUDGETS["int8"], "int8")) == []
    asked = budgets_of("int8", ("cross-map=1", "cross-rank1=1"))
    rank1, average = judge_cross_gallery(cross, SCORES, asked, "int8")
    assert "rank-1 against the reference's gallery fell 2.00 points, from 72.00 to 70.00 %" in rank1
    assert "mAP against the reference's gallery fell 1.50 points" in average
    assert "(--budget cross-map)" in average


def test_a_match_threshold_that_moves_is_judged_where_asked() -> None:
    threshold = MatchThreshold(0.001, 900, 250_000, 0.5, 0.47, -0.03, 0.0004, 0.8, 0.79, 0.7)
    assert list(judge_threshold(threshold, DEFAULT_BUDGETS["int8"])) == []
    (failure,) = judge_threshold(threshold, budgets_of("int8", ("threshold-shift=0.02",)))
    assert "moves by -0.0300, from 0.5000 to 0.4700 at a false-accept rate of 0.001" in failure


def test_a_change_says_how_well_it_is_known() -> None:
    worse = replace(GOOD, map=0.5, map_interval=(-0.06, -0.03))
    (failure,) = _judge(worse, "int8")
    assert "mAP fell 4.50 points, from 54.50 to 50.00 %" in failure
    assert "95 % interval of the fall 3.00 to 6.00" in failure
    assert list(doubts_of_parity(GOOD, DEFAULT_BUDGETS["fp16"])) == []
    assert "264 queries tell the change of mAP to within 1.50 points" in next(
        doubts_of_parity(worse, DEFAULT_BUDGETS["fp16"])
    )


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"batches": ()}, "--batch"), ({"batches": (0,)}, "--batch"), ({"batches": (1, 1)}, "--batch"),
        ({"seconds": -1.0}, "--seconds"), ({"seconds": float("inf")}, "--seconds"), ({"min_rounds": 0}, "--min-rounds"),
        ({"warmup_rounds": -1}, "--warmup-rounds"), ({"seed": -1}, "--seed"), ({"max_crops": 1}, "--max-crops"),
        ({"threads": 0}, "--threads"), ({"max_seconds": 1.0}, "--max-seconds"), ({"cold_starts": -1}, "--cold-starts"),
    ],
)  # fmt: skip
def test_a_wrong_setting_names_its_option(wrong: dict, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must"):
        BenchConfig(**wrong)
