"""The whole comparison: parity on every crop, then time, then the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend, open_backend
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.consistency import BatchConsistency, measure_consistency
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.latency import Latency, measure_rounds, summarise
from hamr_edge.benchmarks.overhead import EmbedOverhead, measure_overhead
from hamr_edge.benchmarks.parity import Parity, measure_parity, nearest_neighbours
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport, ReferenceResult
from hamr_edge.benchmarks.verdict import (
    budgets_of,
    judge_consistency,
    judge_parity,
    judge_source,
    judge_speed,
)
from hamr_edge.dataset import ReidDataset, open_dataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.evaluation import embed_files
from hamr_edge.preprocess import stack_crops
from hamr_edge.progress import stderr_console
from hamr_edge.ranking import RetrievalScores
from hamr_edge.scored_crops import ScoredCrops, choose_crops, score_crops
from hamr_edge.sidecar import external_data_path


def compare(
    artifacts: Sequence[str | Path],
    reference: str | Path,
    data: str | Path | ReidDataset,
    config: BenchConfig | None = None,
    quiet: bool = True,
) -> BenchReport:
    """Hold artifacts against the model they were made of.

    Args:
        artifacts: Files to compare.
        reference: A checkpoint folder, or any other model that :func:`hamr_edge.backend.open_backend` opens.
        data: A data set, or its folder.
        config: Settings; the defaults when None.
        quiet: No progress on stderr.

    Returns:
        Parity, retrieval, latency and a verdict for each artifact. A missed budget is not an error here: look at
        ``report.failed``.

    Raises:
        InputError: No artifact, a model or the data set cannot be used, an artifact's embeddings have another width
            than the reference's, or no batch size fits its maximum batch.
        UnavailableError: A library or the device asked for is not there.
    """
    config = config or BenchConfig()
    if not artifacts:
        raise InputError("no artifact to compare; name at least one .onnx file")
    dataset = data if isinstance(data, ReidDataset) else open_dataset(data)
    crops = choose_crops(dataset, config.max_crops, config.seed)
    models = [Path(reference), *(Path(artifact) for artifact in artifacts)]
    backends = [open_backend(model, config.device, config.threads) for model in models]
    for model, backend in zip(models[1:], backends[1:], strict=True):
        _check_pair(model, backend, models[0], backends[0], config)
    reference_scores, parities = _compare_embeddings(models, backends, crops, config, quiet)
    latencies, overheads = _compare_speed(models, backends, crops, config, quiet)
    results = []
    for index in range(1, len(models)):
        sidecar, (parity, consistency) = backends[index].sidecar, parities[index - 1]
        budgets = budgets_of(sidecar.precision, config)
        failures = (
            *judge_source(sidecar, backends[0].sidecar, [backend.sidecar for backend in backends[1:]]),
            *judge_parity(parity, reference_scores, budgets, sidecar.precision),
            *judge_consistency(consistency, budgets),
            *judge_speed(latencies[index], budgets),
        )
        results.append(
            ArtifactResult(
                artifact=str(artifacts[index - 1]),
                backend=backends[index].name,
                precision=sidecar.precision,
                device=backends[index].device,
                size_bytes=_size_bytes(models[index]),
                latency=latencies[index],
                parity=parity,
                batch_consistency=consistency,
                embed_overhead=overheads[index - 1],
                budgets=asdict(budgets),
                failures=failures,
            )
        )
    return BenchReport(
        environment=describe_environment(config),
        config=config.to_json(),
        data={"name": dataset.name, "images": len(crops), "queries": len(crops.query), "gallery": len(crops.gallery)},
        reference=ReferenceResult(
            artifact=str(reference),
            backend=backends[0].name,
            precision=backends[0].sidecar.precision,
            device=backends[0].device,
            embedding_dim=backends[0].sidecar.embedding_dim,
            source_sha256=backends[0].sidecar.source_sha256,
            retrieval=reference_scores,
            latency=latencies[0],
        ),
        results=tuple(results),
    )


def _check_pair(model: Path, backend: Backend, reference_model: Path, reference: Backend, config: BenchConfig) -> None:
    own, expected = backend.sidecar.embedding_dim, reference.sidecar.embedding_dim
    if own != expected and backend.sidecar.compact and not reference.sidecar.compact:
        raise InputError(
            f"{model} gives compact embeddings of {own} values, the reference {reference_model} {expected}: take an "
            "artifact of the same width for the reference, such as the model.fp32.onnx that was exported with it"
        )
    if own != expected:
        raise InputError(
            f"{model} gives embeddings of {own} values, the reference {reference_model} of {expected}: it was made of "
            "another network; name the checkpoint that it was exported from"
        )
    if min(config.batches) > backend.sidecar.max_batch:
        raise InputError(
            f"{model} takes at most {backend.sidecar.max_batch} crops a batch, fewer than every size asked for "
            f"({', '.join(map(str, config.batches))}); add --batch {backend.sidecar.max_batch}"
        )


def _compare_embeddings(
    models: Sequence[Path], backends: Sequence[Backend], crops: ScoredCrops, config: BenchConfig, quiet: bool
) -> tuple[RetrievalScores, list[tuple[Parity, BatchConsistency]]]:
    """The reference's scores, and each artifact's agreement with it; one model is loaded at a time."""

    def embed(index: int) -> NDArray[np.float32]:
        return embed_files(backends[index], crops.paths, config.mirror, quiet, models[index].name)

    with backends[0]:
        expected = embed(0)
    scores = score_crops(expected, crops)
    neighbours = nearest_neighbours(expected)
    found = []
    for index, backend in enumerate(backends[1:], 1):
        with backend:
            parity = measure_parity(expected, neighbours, scores, embed(index), crops)
            rng = np.random.default_rng(config.seed)
            found.append((parity, measure_consistency(backend, crops, config.batches, rng)))
    return scores, found


def _compare_speed(
    models: Sequence[Path], backends: Sequence[Backend], crops: ScoredCrops, config: BenchConfig, quiet: bool
) -> tuple[list[tuple[Latency, ...]], list[EmbedOverhead | None]]:
    """Each model's latencies, the reference's first, and each artifact's embed overhead; all models are loaded at once.

    No progress bar here: it draws from a thread of its own, which would show in the times.
    """
    console = stderr_console(quiet)
    rng = np.random.default_rng(config.seed)
    latencies: list[list[Latency]] = [[] for _ in backends]
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend)
        for size in config.batches:
            running = [0, *(i for i in range(1, len(backends)) if backends[i].sidecar.max_batch >= size)]
            left_out = [str(models[i]) for i in range(1, len(backends)) if i not in running]
            if left_out:
                console.print(f"batch {size} is above the maximum batch of {', '.join(left_out)}: left out")
            if len(running) == 1:
                continue
            console.print(f"timing batch {size}: {len(running)} models, {config.seconds:g} s or more")
            rows = rng.choice(len(crops), size, replace=size > len(crops))
            images = [read_crop(crops.paths[row]) for row in rows]
            contestants = [_inference(backends[i], images) for i in running]
            times_ms = measure_rounds(contestants, rng, config.seconds, config.min_rounds, config.warmup_rounds)
            for column, index in enumerate(running):
                latencies[index].append(summarise(times_ms[:, column], size, times_ms[:, 0] if index else None))
        console.print(f"timing Embedder.embed: {len(backends) - 1} models, {config.seconds:g} s or more each")
        overheads = [
            measure_overhead(backend, model, config, rng)
            for model, backend in zip(models[1:], backends[1:], strict=True)
        ]
    return [tuple(measured) for measured in latencies], overheads


def _size_bytes(artifact: Path) -> int:
    files = (artifact, external_data_path(artifact))
    return sum(file.stat().st_size for file in files if file.is_file())


def _inference(backend: Backend, images: Sequence[NDArray[np.uint8]]) -> Callable[[], object]:
    batch = stack_crops(images, backend.sidecar.input_size_hw)
    return lambda: backend.infer(batch)
