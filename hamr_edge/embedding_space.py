"""Which embeddings may be compared: the stamp that a gallery carries, and the rule that holds two stamps together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hamr_edge.errors import InputError
from hamr_edge.sidecar import Sidecar

MIN_AGREEMENT = 0.98
"""Least cosine that two artifacts must be known to give for the same crop: what an export asks of int8 as well."""
_UNMEASURED = -1.0


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """What an artifact's embeddings are values of, and how far the artifact is known to stray from its checkpoint.

    Two artifacts are compatible when their checkpoint, width, compact projection and input size are the same, and they
    are known to agree: their angles to the checkpoint's own embedding, as measured when they were exported, add up to
    an angle of at most ``acos(0.98)``, 11.5 degrees. So fp32 and fp16 of one checkpoint mix, int8 mixes with them where
    its measured agreement allows, and two int8 artifacts mix only where both stray little. An artifact always agrees
    with itself.
    """

    checkpoint_sha256: str
    """Hash of the weights, through however many artifacts they went."""
    artifact_sha256: str
    embedding_dim: int
    input_size_hw: tuple[int, int]
    precision: str
    agreement: float
    """Cosine with the checkpoint's embedding of the same crop: the 1st percentile on people held out where it was
    measured, else the least of the export's check. -1 where nobody measured it."""
    compact: str = ""
    """The compact projection, as JSON; empty where the embedding is the network's own."""

    @classmethod
    def of(cls, sidecar: Sidecar) -> EmbeddingSpace:
        """The space of an artifact or a checkpoint."""
        engine = sidecar.engine
        checkpoint = sidecar.source_sha256 if engine is None else engine.checkpoint_sha256
        is_source = sidecar.artifact_sha256 == sidecar.source_sha256
        return cls(
            checkpoint_sha256=checkpoint or sidecar.source_sha256,
            artifact_sha256=sidecar.artifact_sha256,
            embedding_dim=sidecar.embedding_dim,
            input_size_hw=sidecar.input_size_hw,
            precision=sidecar.precision,
            agreement=1.0 if is_source else _agreement(sidecar.parity, engine is not None),
            compact=json.dumps(sidecar.compact, sort_keys=True) if sidecar.compact else "",
        )

    def check_compatible(self, other: EmbeddingSpace, allow_mixed: bool = False) -> None:
        """Find out that embeddings of two artifacts may be compared.

        Args:
            other: The space of the other embeddings.
            allow_mixed: Accept artifacts of one checkpoint that are not known to agree.

        Raises:
            InputError: They may not; the message names both sides.
        """
        facts = (
            ("checkpoint", f"{self.checkpoint_sha256[:12]}...", f"{other.checkpoint_sha256[:12]}...")
            if self.checkpoint_sha256 != other.checkpoint_sha256
            else ("embedding width", f"{self.embedding_dim} values", f"{other.embedding_dim} values")
            if self.embedding_dim != other.embedding_dim
            else ("compact projection", self.compact or "none", other.compact or "none")
            if not _same_projection(self.compact, other.compact)
            else ("input size", f"{self.input_size_hw}", f"{other.input_size_hw}")
            if self.input_size_hw != other.input_size_hw
            else None
        )
        if facts is not None:
            what, own, others = facts
            raise InputError(
                f"embeddings of {other.name} cannot be compared with those of {self.name}: the {what} is {others}, "
                f"expected {own}; embed again with {self.name}, or start another gallery"
            )
        if other.artifact_sha256 == self.artifact_sha256:
            return
        least = _guaranteed(self.agreement, other.agreement)
        if least < MIN_AGREEMENT and not allow_mixed:
            raise InputError(
                f"{other.name} ({_in_words(other.agreement)}) and {self.name} ({_in_words(self.agreement)}) are of one "
                f"checkpoint but are not known to agree to a cosine of {MIN_AGREEMENT}; embed again with {self.name}, "
                "or allow mixed precisions after 'hamr-edge bench' showed what the mix costs (its cross-gallery scores)"
            )

    @property
    def name(self) -> str:
        """Precision, checkpoint and artifact in a few words."""
        return (
            f"{self.precision} artifact {self.artifact_sha256[:12]} of checkpoint {self.checkpoint_sha256[:12]} "
            f"({self.embedding_dim} values)"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EmbeddingSpace:
        """Read what :meth:`to_json` and JSON made.

        Raises:
            ValueError: An entry is missing, unknown or not as expected.
        """
        if set(values) != {known.name for known in fields(cls)}:
            raise ValueError(f"unknown or missing entries of the embedding space, got {sorted(values)}")
        height, width = values["input_size_hw"]
        texts = ("checkpoint_sha256", "artifact_sha256", "precision", "compact")
        numbers = (values["embedding_dim"], height, width)
        if not all(isinstance(values[name], str) for name in texts) or not all(isinstance(n, int) for n in numbers):
            raise ValueError("the embedding space has entries of the wrong type")
        if values["compact"] and not isinstance(json.loads(values["compact"]), dict):
            raise ValueError(f"the compact projection must be a JSON object, got {values['compact']!r}")
        agreement = values["agreement"]
        if not isinstance(agreement, int | float) or not -1 <= agreement <= 1:  # written so that NaN is wrong too
            raise ValueError(f"the agreement must be a cosine in -1..1, got {agreement!r}")
        return cls(**{**values, "input_size_hw": (height, width), "agreement": float(agreement)})


def _agreement(parity: Mapping[str, Any], is_derived: bool) -> float:
    """The measured cosine with the checkpoint; of an artifact made of another, over both steps.

    Args:
        parity: As in a sidecar.
        is_derived: The artifact was certainly made of another one: without that one's parity, nothing is known.
    """
    held_out = parity.get("held_out", {})
    measured = held_out.get("p01_cosine", parity.get("min_cosine"))
    of_source = parity.get("of_source")
    if measured is None or (is_derived and of_source is None):
        return _UNMEASURED
    own = min(1.0, float(measured)) if math.isfinite(float(measured)) else _UNMEASURED
    return own if of_source is None else _guaranteed(own, _agreement(of_source, False))


def _guaranteed(first: float, second: float) -> float:
    """The least cosine of two unit vectors that have these cosines with a third: angles add up at most."""
    if min(first, second) <= _UNMEASURED:
        return _UNMEASURED
    return math.cos(min(math.pi, math.acos(min(1.0, first)) + math.acos(min(1.0, second))))


def _same_projection(first: str, second: str) -> bool:
    """Whether all that both sides say of their projection is the same: older sidecars lack its hash."""
    if not first or not second:
        return first == second
    one, other = json.loads(first), json.loads(second)
    return all(one[name] == other[name] for name in set(one) & set(other))


def _in_words(agreement: float) -> str:
    return "agreement not measured" if agreement <= _UNMEASURED else f"agreement {agreement:.4f}"
