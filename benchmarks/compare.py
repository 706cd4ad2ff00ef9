"""The whole comparison: parity on every crop, then time, then the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.accuracy import (
    Accuracy,
    ReferenceAccuracy,
    common_folder,
    embed_reference,
    measure_accuracy,
)
from hamr_edge.benchmarks.cold_start import ColdStart, measure_cold_start
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.contestant import Contestant, ModelContestant, PeerContestant
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.judgement import Judgement, judge
from hamr_edge.benchmarks.latency import unsteady_sentence
from hamr_edge.benchmarks.model_names import number_equals, short_names
from hamr_edge.benchmarks.peer_process import parse_peer
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport, ReferenceResult, Role
from hamr_edge.benchmarks.sensitivity import read_sensitivity
from hamr_edge.benchmarks.speed import Speed, measure_speed
from hamr_edge.benchmarks.verdict import doubts_of_reference, judge_speed
from hamr_edge.dataset import ReidDataset, open_dataset
from hamr_edge.errors import InputError
from hamr_edge.machine_state import machine_state, state_changes
from hamr_edge.progress import stderr_console
from hamr_edge.scored_crops import choose_crops
from hamr_edge.sidecar import sidecar_path


def compare(
    artifacts: Sequence[str | Path],
    reference: str | Path,
    data: str | Path | ReidDataset,
    config: BenchConfig | None = None,
    quiet: bool = True,
) -> BenchReport:
    """Hold artifacts against the model they were made of.

    Args:
        artifacts: Files to judge.
        reference: A checkpoint folder, or any other model that :func:`hamr_edge.backend.open_backend` opens.
        data: A data set, or its folder.
        config: Settings, and what to measure beside; the defaults when None.
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
    first, others = _enter(artifacts, reference, config)
    contestants = [first, *others]
    for contestant in others:
        if isinstance(contestant, PeerContestant):
            with contestant:  # a program that does not start must not end hours of measuring
                stderr_console(quiet).print(f"{contestant.name}: {contestant.label}", markup=False)
    before = machine_state()
    cold_starts = [_start_cold(contestant, config, quiet) for contestant in contestants]
    with first:
        expected = embed_reference(first, crops, config, quiet)
    sidecars = [one.backend.sidecar for one in contestants if isinstance(one, ModelContestant)]
    accuracies, judgements = [], []
    for contestant in others:
        with contestant:
            accuracies.append(measure_accuracy(contestant, expected, crops, config, quiet))
        judgements.append(
            judge(contestant, accuracies[-1], first, expected, sidecars, crops, config, quiet)
            if isinstance(contestant, ModelContestant) and contestant.role == "artifact"
            else None
        )
    speeds = measure_speed(contestants, crops, config, quiet)
    after = machine_state()
    return BenchReport(
        environment={**describe_environment(config, before), "state_after": after},
        config=config.to_json(),
        data={
            "name": dataset.name,
            "folder": str(common_folder(crops.paths)),
            "images": len(crops),
            "queries": len(crops.query),
            "gallery": len(crops.gallery),
        },
        reference=_describe_reference(first, expected, speeds[0], cold_starts[0]),
        results=tuple(
            _describe(*parts, after)
            for parts in zip(others, accuracies, judgements, speeds[1:], cold_starts[1:], strict=True)
        ),
        notes=(
            *doubts_of_reference(expected.retrieval.separation),
            *state_changes(before, after, any(one.device == "cpu" for one in contestants)),
            *_doubts_of_speed(first.name, speeds[0], after),
        ),
    )


def _enter(
    artifacts: Sequence[str | Path], reference: str | Path, config: BenchConfig
) -> tuple[ModelContestant, list[Contestant]]:
    """The reference, and everyone beside it; nothing is loaded yet."""
    named = [str(reference), *map(str, artifacts), *config.beside]
    names = short_names(named)
    models = []
    for index, (name, model) in enumerate(zip(names, named, strict=True)):
        role: Role = "artifact" if index <= len(artifacts) else "beside"
        foreign = _foreign(model, config)
        backend = open_backend(model, config.device, config.threads, **foreign)
        models.append(ModelContestant(name, role, model, backend, tuple(foreign.items())))
    for mode in config.torch_modes:
        backend = open_backend(reference, config.device, config.threads, mode=mode)
        models.append(ModelContestant(f"{names[0]} ({mode})", "beside", str(reference), backend, (("mode", mode),)))
    peers = [parse_peer(text) for text in config.peers]
    everyone: list[Contestant] = [
        *models,
        *(PeerContestant(peer.name, shlex.join(peer.command), peer) for peer in peers),
    ]
    for contestant, name in zip(everyone, number_equals(one.name for one in everyone), strict=True):
        contestant.name = name
    for artifact in models[1 : 1 + len(artifacts)]:
        _check_pair(artifact, models[0], config)
    return models[0], everyone[1:]


def _foreign(model: str, config: BenchConfig) -> dict[str, str]:
    """What ``open_backend`` must be told of an ``.onnx`` of others."""
    described = config.input_description is not None and Path(model).suffix == ".onnx"
    return (
        {"input_description": str(config.input_description)} if described and not sidecar_path(model).is_file() else {}
    )


def _check_pair(artifact: ModelContestant, reference: ModelContestant, config: BenchConfig) -> None:
    own, expected = artifact.backend.sidecar, reference.backend.sidecar
    if own.embedding_dim != expected.embedding_dim and own.compact and not expected.compact:
        raise InputError(
            f"{artifact.model} gives compact embeddings of {own.embedding_dim} values, the reference {reference.model} "
            f"{expected.embedding_dim}: take an artifact of the same width for the reference, such as the "
            "model.fp32.onnx that was exported with it"
        )
    if own.embedding_dim != expected.embedding_dim:
        raise InputError(
            f"{artifact.model} gives embeddings of {own.embedding_dim} values, the reference {reference.model} of "
            f"{expected.embedding_dim}: it was made of another network; name the checkpoint that it was exported from, "
            "or measure it with --beside, unjudged"
        )
    if min(config.batches) > own.max_batch:
        raise InputError(
            f"{artifact.model} takes at most {own.max_batch} crops a batch, fewer than every size asked for "
            f"({', '.join(map(str, config.batches))}); add --batch {own.max_batch}"
        )


def _start_cold(contestant: Contestant, config: BenchConfig, quiet: bool) -> ColdStart | None:
    if not isinstance(contestant, ModelContestant) or not config.cold_starts:
        return None
    stderr_console(quiet).print(f"starting {contestant.name} in {config.cold_starts} fresh processes", markup=False)
    return measure_cold_start(
        Path(contestant.model), contestant.device, config.threads, config.cold_starts, contestant.cold_options
    )


def _describe_reference(
    reference: ModelContestant, accuracy: ReferenceAccuracy, speed: Speed, cold_start: ColdStart | None
) -> ReferenceResult:
    return ReferenceResult(
        artifact=reference.model,
        name=reference.name,
        backend=reference.label,
        precision=reference.precision,
        device=reference.device,
        size_bytes=reference.size_bytes,
        embedding_dim=reference.embedding_dim,
        source_sha256=reference.backend.sidecar.source_sha256,
        retrieval=accuracy.retrieval.scores.summary(),
        separation=accuracy.retrieval.separation,
        latency=tuple(speed.latency),
        end_to_end=tuple(speed.end_to_end),
        stages=speed.stages,
        cold_start=cold_start,
        energy=speed.energy,
    )


def _describe(
    contestant: Contestant,
    accuracy: Accuracy,
    judgement: Judgement | None,
    speed: Speed,
    cold_start: ColdStart | None,
    state: dict[str, Any],
) -> ArtifactResult:
    return ArtifactResult(
        artifact=contestant.model,
        name=contestant.name,
        role=contestant.role,
        backend=contestant.label,
        precision=contestant.precision,
        device=contestant.device,
        size_bytes=contestant.size_bytes,
        embedding_dim=contestant.embedding_dim,
        latency=tuple(speed.latency),
        end_to_end=tuple(speed.end_to_end),
        **{field.name: getattr(accuracy, field.name) for field in fields(accuracy)},
        sensitivity=read_sensitivity(Path(contestant.model)) if isinstance(contestant, ModelContestant) else (),
        stages=speed.stages,
        cold_start=contestant.cold_start if isinstance(contestant, PeerContestant) else cold_start,
        energy=speed.energy,
        budgets=asdict(judgement.budgets) if judgement else {},
        failures=(*judgement.failures, *judge_speed(speed.latency, judgement.budgets)) if judgement else (),
        causes=judgement.causes if judgement else (),
        notes=(*(judgement.notes if judgement else ()), *_doubts_of_speed(contestant.name, speed, state)),
    )


def _doubts_of_speed(name: str, speed: Speed, state: dict[str, Any]) -> list[str]:
    sentence = unsteady_sentence(name, {"batches": speed.latency, "frames with boxes": speed.end_to_end}, state)
    return [] if sentence is None else [sentence]
