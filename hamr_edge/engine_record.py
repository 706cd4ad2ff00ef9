"""What a TensorRT plan was built by, for what and how: the part of a sidecar that only engines have."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt-rtx"
FLAVOURS = (TENSORRT, TENSORRT_RTX)
"""TensorRT as in JetPack and data centres, and TensorRT for RTX: neither loads plans of the other."""
FLAVOUR_NAMES = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT for RTX"}
ANY = "any"
DLA_CORE = "--dla-core"
_TEXTS = (
    "flavour",
    "version",
    "compute_capability",
    "system",
    "machine",
    "source",
    "device_name",
    "checkpoint_sha256",
)


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """Stored as ``engine`` in the sidecar of an ``.engine`` file."""

    flavour: str
    """``tensorrt`` or ``tensorrt-rtx``."""
    version: str
    """Of the library that built the plan, as it says it: ``10.3.0``."""
    compute_capability: str
    """Of the GPUs that may run the plan: ``8.7`` for that one, ``8.0+`` for that one and later."""
    system: str
    """``linux`` or ``windows``; ``any`` where the plan runs on both."""
    machine: str
    """``x86_64`` or ``aarch64``."""
    profile: dict[str, tuple[tuple[int, ...], ...]]
    """Smallest, likeliest and largest shape of each input."""
    source: str
    """Name of the ONNX file it was built from, which lay in the same folder."""
    device_name: str = ""
    """The GPU it was tuned on; empty where it was built without one."""
    checkpoint_sha256: str = ""
    """Hash of the weights that the ONNX was made of."""
    version_compatible: bool = False
    """It runs on later versions of TensorRT as well."""
    options: tuple[str, ...] = ()
    """Words of the command line that change the plan: ``("--batch", "32", "--opt-batch", "8")``."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else is worth keeping: seconds of the build, number of layers, the workspace."""

    @property
    def dla_core(self) -> int | None:
        """The deep-learning accelerator of a Jetson that it was built for; None for the GPU alone.

        Raises:
            ValueError: The options name one that is no number.
        """
        after = [word for flag, word in zip(self.options, (*self.options[1:], ""), strict=False) if flag == DLA_CORE]
        return int(after[0]) if after else None


def rebuild_command(engine: str | Path, record: EngineRecord | None = None) -> str:
    """The command line that builds an engine again, on the machine where it is typed.

    Args:
        engine: The ``.engine`` file; its ONNX is looked for in the same folder.
        record: How it was built; without it, by the defaults, from the ONNX of the same name.
    """
    engine = Path(engine)
    options = () if record is None else record.options
    words = ["hamr-edge", "export", str(_source(engine, record)), "-o", str(engine.parent), "--format", "engine"]
    # Neither shell of Windows takes the quotes of the others.
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)([*words, *options])


def rebuild_hint(engine: str | Path, record: EngineRecord | None = None) -> str:
    """What to do about an engine that does not fit this machine: :func:`rebuild_command`, and what it needs first."""
    source, command = _source(Path(engine), record), rebuild_command(engine, record)
    absent = [path.name for path in (source, Path(f"{source}.json")) if not path.is_file()]
    if not absent:
        return f"build it again on this machine: {command}"
    verb, which = ("is", "it") if len(absent) == 1 else ("are", "them")
    return (
        f"build it again on this machine; {' and '.join(absent)} {verb} not beside it: copy {which} there from where "
        f"{source.name} was exported, then: {command}"
    )


def record_from_json(values: dict[str, Any]) -> EngineRecord:
    """Read what :func:`dataclasses.asdict` and JSON made of a record.

    Raises:
        ValueError: An entry is missing, unknown or not as expected.
        TypeError: An entry is missing or unknown.
    """
    profile = {
        str(name): tuple(tuple(int(side) for side in shape) for shape in shapes)
        for name, shapes in values["profile"].items()
    }
    if any(len(shapes) != 3 for shapes in profile.values()):
        raise ValueError(f"engine.profile must have three shapes an input, got {values['profile']!r}")
    options = values.get("options", ())
    if not isinstance(options, list | tuple) or not all(isinstance(word, str) for word in options):
        raise ValueError(f"engine.options must be a list of words, got {options!r}")
    record = EngineRecord(**{**values, "profile": profile, "options": tuple(options)})
    for name in _TEXTS:
        if not isinstance(getattr(record, name), str):
            raise ValueError(f"engine.{name} must be text, got {getattr(record, name)!r}")
    if record.dla_core is not None and record.dla_core < 0:
        raise ValueError(f"engine.options must name a core from 0 on after {DLA_CORE}, got {record.dla_core}")
    if record.flavour not in FLAVOURS:
        raise ValueError(f"engine.flavour must be {' or '.join(FLAVOURS)}, got {record.flavour!r}")
    if not re.match(r"[0-9]+\.[0-9]", record.version):
        raise ValueError(f"engine.version must be like 10.3.0, got {record.version!r}")
    if not re.fullmatch(r"[0-9]+\.[0-9]+\+?", record.compute_capability):
        raise ValueError(f"engine.compute_capability must be like 8.7 or 8.0+, got {record.compute_capability!r}")
    # Both separators: a record may come from the other system.
    if record.source in ("", ".", "..") or re.search(r"[/\\]", record.source):
        raise ValueError(f"engine.source must be the name of a file, got {record.source!r}")
    if not isinstance(record.version_compatible, bool):
        raise ValueError(f"engine.version_compatible must be true or false, got {record.version_compatible!r}")
    return record


def _source(engine: Path, record: EngineRecord | None) -> Path:
    return engine.with_suffix(".onnx") if record is None else engine.with_name(record.source)
