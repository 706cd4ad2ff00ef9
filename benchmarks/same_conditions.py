"""Which figures of two reports may be held against each other, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hamr_edge.benchmarks.report_values import number, text_of, value_of

_ANOTHER_SIZE = 0.02
"""Share by which two checkpoints' sizes may differ and be of one network."""
_ANOTHER_SCORE = 1e-4
"""mAP, in 0..1; orders of summation change it by less."""
_CROPS = (("name", "data set"), ("images", "crops"), ("queries", "queries"), ("gallery", "gallery"))
_MACHINE = (
    ("CPU", ("cpu",)),
    ("cores", ("cores",)),
    ("cores it may use", ("state", "cores")),
    ("threads", ("threads",)),
    ("governor", ("governor",)),
    ("power mode", ("state", "jetson", "power_mode")),
)


@dataclass(frozen=True, slots=True)
class SameConditions:
    """None is: the same in both reports. Else a sentence on what differs."""

    crops: str | None
    """Scores on other crops are never compared."""
    machine: str | None
    """Milliseconds, memory and energy of another machine are never compared; ratios are, and gate nothing."""
    reference: str | None
    """Ratios to another network are never compared."""
    checkpoint: str | None
    """Agreement with another checkpoint is never compared; scores are, with the noise of two models, not of one."""
    cautions: tuple[str, ...]
    """What differs besides, such as libraries."""


def same_conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> SameConditions:
    """Hold the circumstances of two reports against each other."""
    machine = _differences(_machine(old), _machine(new))
    reference, checkpoint = _reference(old, new), None
    was, now = (text_of(report, "reference", "source_sha256") for report in (old, new))
    if was != now:
        checkpoint = f"another checkpoint: its source was {was[:12] or 'not told'}, and is {now[:12] or 'not told'}"
    crops = _differences(_crops(old), _crops(new))
    return SameConditions(
        crops=f"other crops: {crops}" if crops else None,
        machine=f"another machine: {machine}" if machine else None,
        reference=f"another reference: {reference}" if reference else None,
        checkpoint=checkpoint,
        cautions=tuple(_cautions(old, new)),
    )


def _crops(report: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on which crops, and how, a model was scored."""
    found = {title: value_of(report, "data", name) for name, title in _CROPS}
    found["mirror"] = bool(value_of(report, "config", "mirror"))
    if (most := value_of(report, "config", "max_crops")) is not None:
        found |= {"--max-crops": most, "--seed": value_of(report, "config", "seed")}
    return found


def _machine(report: Mapping[str, Any]) -> dict[str, Any]:
    found = {title: value_of(report, "environment", *path) for title, path in _MACHINE}
    gpus = value_of(report, "environment", "gpus")
    # nvidia-smi gives "name, driver": another driver is told as another library is.
    found["GPU"] = ", ".join(str(gpu).split(",")[0] for gpu in gpus) if isinstance(gpus, list | tuple) else None
    return found


def _reference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs in the reference's network, library or device; empty where ratios to the two say the same."""
    fields = ("precision", "backend", "device", "embedding_dim")
    was, now = ({name: value_of(report, "reference", name) for name in fields} for report in (old, new))
    before, after = (number(report, "reference", "size_bytes") for report in (old, new))
    if before and after and max(before, after) > (1 + _ANOTHER_SIZE) * min(before, after):
        was, now = {**was, "size": f"{before / 1e6:.1f} MB"}, {**now, "size": f"{after / 1e6:.1f} MB"}
    return _differences(was, now)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Each entry that differs, with its old and new value; empty where none does."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    optional = {"cores it may use", "governor", "power mode", "--seed"}  # older reports do not tell
    keys = [key for key in keys if key not in optional or None not in (old.get(key), new.get(key))]
    return ", ".join(f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}" for key in keys)


def _shown(value: Any) -> str:
    return "not set" if value is None else "none" if value == "" else str(value)


def _cautions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    def libraries(report: Mapping[str, Any]) -> dict[str, Any]:
        found = value_of(report, "environment", "libraries")
        return {**(found if isinstance(found, Mapping) else {}), "Python": value_of(report, "environment", "python")}

    was, now = libraries(old), libraries(new)
    gpus = [value_of(report, "environment", "gpus") for report in (old, new)]
    if all(isinstance(listed, list | tuple) and listed for listed in gpus):
        was["GPU and driver"], now["GPU and driver"] = ("; ".join(map(str, listed)) for listed in gpus)
    absent = dict.fromkeys({**was, **now}, "not installed")
    if differ := _differences({**absent, **was}, {**absent, **now}):
        yield f"other versions: {differ}; a change may come of them"
    before, after = (number(report, "reference", "retrieval", "map") for report in (old, new))
    same = text_of(old, "reference", "source_sha256") == text_of(new, "reference", "source_sha256")
    if not same or before is None or after is None or _differences(_crops(old), _crops(new)):
        return
    if abs(after - before) > _ANOTHER_SCORE:
        yield (
            f"the reference is the same, and its mAP went from {100 * before:.2f} to {100 * after:.2f} %: files of the "
            "data set, or how libraries read and resize them, have changed"
        )
