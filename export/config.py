"""Settings of an export."""

from __future__ import annotations

from dataclasses import dataclass, field

from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CalibrationConfig
from hamr_edge.errors import InputError

PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
"""``int8`` is Q/DQ and float16, for TensorRT; ``int8-cpu`` is what ONNX Runtime runs fastest on x86."""
FORMS = ("crops", "frame")
_MIN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9, "int8-cpu": 0.9}
_FRAME_COSINE = 0.999
"""The graph resizes in float32, OpenCV in whole numbers: pixels differ by 1 here and there."""


def check_max_batch(max_batch: int) -> None:
    """Raise InputError unless it may be an artifact's largest batch."""
    if not 1 <= max_batch <= 1024:
        raise InputError(f"max_batch must be in 1..1024, got {max_batch}")


def check_min_cosine(min_cosine: float | None) -> None:
    """Raise InputError unless it may be a least agreement; None leaves it to the precision."""
    if min_cosine is not None and not 0 < min_cosine < 1:
        raise InputError(f"min_cosine must be between 0 and 1, got {min_cosine}")


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to export and how it is checked."""

    precisions: tuple[str, ...] = ("fp32",)
    forms: tuple[str, ...] = ("crops",)
    max_batch: int = 32
    """Largest batch of the artifact; the runtime splits larger ones."""
    min_cosine: float | None = None
    """Every crop's embedding must agree with PyTorch's at least this well, at every batch size tried; when None, as
    well as the precision allows."""
    seed: int = 0
    """Chooses crops: of the check, of calibration, and held-out people."""
    embedding_dim: int | None = None
    """Values of compact embeddings; the network's own embeddings when None."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    budget: Budget = field(default_factory=Budget)
    held_out_crops: int = 2000
    """Most query and gallery crops that int8 is judged on; whole identities."""

    def __post_init__(self) -> None:
        for what, given, known in (("precision", self.precisions, PRECISIONS), ("form", self.forms, FORMS)):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise InputError(f"{what} must be of {', '.join(known)}, got {', '.join(unknown) or 'nothing'}")
            if len(set(given)) < len(given):
                raise InputError(f"{what} names {', '.join(given)}: name each once")
        check_max_batch(self.max_batch)
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        check_min_cosine(self.min_cosine)
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise InputError(f"embedding_dim must be at least 1, got {self.embedding_dim}")
        if self.held_out_crops < 2:
            raise InputError(f"held_out_crops must be at least 2, got {self.held_out_crops}")

    def least_cosine(self, precision: str, form: str) -> float:
        """How well every row of an artifact must agree with PyTorch."""
        if self.min_cosine is not None:
            return self.min_cosine
        return min(_MIN_COSINE[precision], _FRAME_COSINE if form == "frame" else 1.0)
