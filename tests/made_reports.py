"""A comparison made up of figures such as a real one has: two passes, a failure, and two models beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hamr_edge.benchmarks.cold_start import ColdStart
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.cross_gallery import CrossGallery
from hamr_edge.benchmarks.diagnosis import Cause
from hamr_edge.benchmarks.energy import Energy
from hamr_edge.benchmarks.latency import Latency, Speedup
from hamr_edge.benchmarks.match_threshold import MatchThreshold
from hamr_edge.benchmarks.parity import CosineHistogram, Parity
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport, ReferenceResult, Role
from hamr_edge.benchmarks.sensitivity import BlockSensitivity
from hamr_edge.benchmarks.separation import Separation
from hamr_edge.benchmarks.stages import StageSplit
from hamr_edge.benchmarks.worst_crops import Neighbour, WorstCrop
from hamr_edge.ranking import RetrievalScores

RANK1, MAP, MINP = 0.7883, 0.6039, 0.279
CROPS = tuple(f"query/{number:04d}_c1s1_000151_01.jpg" for number in range(1, 7))
GALLERY = tuple(f"bounding_box_test/{number:04d}_c2s1_000301_01.jpg" for number in range(1, 11))


def made_latency(batch: int, speed: float | None, slow: float = 1.0, uncertainty: float = 0.008) -> Latency:
    """Of a model that is ``speed`` times as fast as the reference; None is the reference itself."""
    p50_ms = slow * (19.0 + 8.6 * batch) / (speed or 1.0)
    speedup = None
    if speed is not None:
        speedup = Speedup(speed, 0.9 * speed, 1.2 * speed, 0.985 * speed, 1.02 * speed)
    return Latency(
        batch=batch,
        p50_ms=p50_ms,
        p90_ms=1.05 * p50_ms,
        p95_ms=1.1 * p50_ms,
        p99_ms=1.3 * p50_ms,
        mean_ms=1.01 * p50_ms,
        images_per_s=1000 * batch / (1.01 * p50_ms),
        iterations=140,
        uncertainty=uncertainty,
        speedup=speedup,
    )


def made_parity(lost: float = 0.0, distance: float | None = 1e-7) -> Parity:
    """Of a model that loses a share of the scores; its embeddings lie so far from the reference's, or are wider."""
    return Parity(
        images=1329,
        not_finite=0,
        max_norm_error=1e-7,
        min_cosine=None if distance is None else 1 - 20 * distance,
        p01_cosine=None if distance is None else 1 - 6 * distance,
        mean_cosine=None if distance is None else 1 - distance,
        worst_crop=None if distance is None else CROPS[0],
        top1_agreement=max(0.1, 1 - 20 * lost),
        overlap_at_10=max(0.2, 1 - 10 * lost),
        rank1=RANK1 - lost,
        rank5=0.901 - lost,
        rank10=0.933 - lost,
        map=MAP - lost,
        minp=MINP - lost,
        queries=264,
        rank1_delta=-lost,
        rank5_delta=-lost,
        rank10_delta=-lost,
        map_delta=-lost,
        minp_delta=-lost,
        rank1_interval=(-lost - 0.003, -lost + 0.003),
        map_interval=(-lost - 0.002, -lost + 0.002),
    )


def made_histogram(distance: float) -> CosineHistogram:
    """Crops around a distance from 1."""
    edges = (0.0, *(10 ** (-7 + 0.2 * step) for step in range(37)), 2.0)
    counts = [0] * (len(edges) - 1)
    centre = next(place for place, edge in enumerate(edges[1:]) if edge > distance)
    for offset, count in ((-2, 60), (-1, 300), (0, 600), (1, 300), (2, 60), (3, 9)):
        counts[min(max(centre + offset, 0), len(counts) - 1)] += count
    return CosineHistogram(edges, tuple(counts))


def made_worst_crops(crops: tuple[str, ...] = CROPS, gallery: tuple[str, ...] = GALLERY) -> tuple[WorstCrop, ...]:
    """Each with five neighbours before, of which two are exchanged after."""
    worst = []
    for number, crop in enumerate(crops):
        before = tuple(Neighbour(gallery[place], 0.9 - 0.04 * place, place % 3 < 2) for place in range(5))
        after = tuple(
            replace(old, crop=gallery[place + 5], same_person=False) if place in (1, 3) else old
            for place, old in enumerate(before)
        )
        worst.append(WorstCrop(crop, 0.96 + 0.003 * number, before, after))
    return tuple(worst)


def made_result(
    name: str,
    speed: float,
    *,
    lost: float = 0.0,
    distance: float | None = 1e-7,
    role: Role = "artifact",
    size_mb: float = 277.6,
    batches: tuple[int, ...] = (1, 8, 32),
    **fields: Any,
) -> ArtifactResult:
    """A model beside the reference."""
    known = distance is not None
    values: dict[str, Any] = {
        "artifact": f"build/{name}",
        "name": name,
        "role": role,
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
        "device": "cpu",
        "size_bytes": round(1e6 * size_mb),
        "embedding_dim": 10752 if known else 512,
        "latency": tuple(made_latency(batch, speed) for batch in batches),
        "end_to_end": tuple(made_latency(batch, 0.97 * speed, 1.04) for batch in batches),
        "parity": made_parity(lost, distance),
        "separation": Separation(0.62, 0.24, max(1.2, 3.1 - 20 * lost)),
        "match_threshold": MatchThreshold(0.001, 4200, 310_000, 0.51, 0.51 - lost, -lost, 0.0012, 0.714, 0.71, 0.72),
        "cross_gallery": CrossGallery(RANK1 - lost / 2, MAP - lost / 2, -lost / 2, -lost / 2) if known else None,
        "batch_consistency": BatchConsistency(32, (1, 2, 8, 32), 1 - 1e-7, CROPS[0], 8) if known else None,
        "cosine_histogram": made_histogram(distance) if distance is not None else None,
        "worst_crops": made_worst_crops() if known else (),
        "stages": StageSplit(8, 1.2, 0.0, 62.0, 0.0, 64.5, 0.021, 120),
        "cold_start": ColdStart(310.0, 840.0, 41.0, 1191.0, 780.0, None, 3),
        "budgets": {"p01_cosine": 0.98, "map": 0.5, "rank1": 0.3} if role == "artifact" else {},
    }
    return ArtifactResult(**{**values, **fields})


def made_report(**fields: Any) -> BenchReport:
    """The whole comparison; fields replace its own."""
    reference = ReferenceResult(
        artifact="runs/market",
        name="market",
        backend="pytorch-cpu",
        precision="fp32",
        device="cpu",
        size_bytes=277_900_000,
        embedding_dim=10752,
        source_sha256="ab" * 32,
        retrieval=RetrievalScores(RANK1, 0.901, 0.933, MAP, MINP, 264, 1065),
        separation=Separation(0.63, 0.24, 3.16),
        latency=tuple(made_latency(batch, None) for batch in (1, 8, 32)),
        end_to_end=tuple(made_latency(batch, None, 1.04) for batch in (1, 8, 32)),
        stages=StageSplit(8, 1.2, 0.0, 88.0, 0.0, 90.1, 0.01, 120),
        cold_start=ColdStart(2100.0, 640.0, 90.0, 2830.0, 1410.0, None, 3),
        energy=Energy("rapl package-0", 8, 31.0, 9.0, 410.0, 2),
    )
    results = (
        made_result("model.fp32.onnx", 1.25, energy=Energy("rapl package-0", 8, 30.0, 9.0, 330.0, 2)),
        made_result("model.fp16.onnx", 1.1, lost=0.0001, distance=2e-7, size_mb=138.8, precision="fp16"),
        made_result(
            "model.int8-cpu.onnx",
            1.72,
            lost=0.0014,
            distance=1.1e-3,
            size_mb=83.8,
            precision="int8-cpu",
            sensitivity=(
                BlockSensitivity("stage 1", False, 0.9991, -0.0002),
                BlockSensitivity("stage 2", False, 0.9995, 0.0001),
                BlockSensitivity("embedding layer", True, 0.9998, None),
            ),
            notes=("264 queries tell a change of mAP of 0.2 points or more from chance",),
        ),
        made_result(
            "model.bgr.onnx",
            1.2,
            lost=0.043,
            distance=0.04,
            failures=("mAP fell 4.30 points, from 60.39 to 56.09 %; fp32 may lose 0.5 (--budget map)",),
            causes=(Cause("colour order", "red and blue are swapped: with them exchanged the mean cosine is 0.99998"),),
        ),
        made_result("osnet_x1_0.onnx", 2.6, lost=0.21, distance=None, role="beside", size_mb=8.7),
        made_result(
            "boxmot",
            1.02,
            lost=0.0001,
            role="beside",
            artifact="env/bin/python peers/boxmot.py",
            backend="boxmot 13",
            size_mb=0,
            latency=(),
            batch_consistency=None,
            stages=None,
            cold_start=None,
        ),
    )
    values: dict[str, Any] = {
        "environment": {
            "date": "2026-11-23T02:10:00+00:00",
            "cpu": "AMD EPYC",
            "cores": 2,
            "gpus": [],
            "threads": None,
            "state": {"cpu": {"clock_mhz": 2600, "pinned": None}, "jetson": None},
            "libraries": {"numpy": "2.4.6", "onnxruntime": "1.32.0"},
        },
        "config": {**BenchConfig(budgets=("map=0.5",), beside=("osnet_x1_0.onnx",)).to_json(), "batches": [1, 8, 32]},
        "data": {"name": "Market-1501-mini", "folder": "Market-1501-mini", "images": 1329, "queries": 264,
                 "gallery": 1065},
        "reference": reference,
        "results": results,
        "notes": ("the machine was busy before it began: load 3.1 on 2 cores; stop other programs",),
    }  # fmt: skip
    return BenchReport(**{**values, **fields})
