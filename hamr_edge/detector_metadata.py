"""What a detector's file says about itself, held against what was declared of it; never used to guess."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from hamr_edge.detector_formats import FORMATS, DetectorFormat
from hamr_edge.errors import InputError

_PEOPLE = ("person", "people", "pedestrian", "human")


def check_metadata(
    metadata: Mapping[str, str], form: DetectorFormat, size_hw: tuple[int, int] | None, size_is_assumed: bool
) -> None:
    """Hold ultralytics' notes against the declaration; a file of others has none of them.

    Args:
        metadata: The ONNX file's ``metadata_props``.
        form: As declared.
        size_hw: The input's size in use.
        size_is_assumed: Neither the file nor the user fixes it.

    Raises:
        InputError: They contradict each other.
    """
    if metadata.get("author") == "Ultralytics" and not form.of_ultralytics:
        theirs = ", ".join(name for name, other in FORMATS.items() if other.of_ultralytics)
        raise InputError(f"its metadata says that ultralytics wrote it; declared as {form.name}, expected of {theirs}")
    task = metadata.get("task", "detect")
    if task != "detect":
        raise InputError(f"its metadata says that its task is {task!r}; expected a model of the task 'detect'")
    head = metadata.get("head", "")
    if head and form.of_ultralytics and (head == "RTDETRDecoder") != form.name.startswith("rtdetr"):
        raise InputError(f"its metadata says that its head is {head}; declared as {form.name}")
    size = _read(metadata, "imgsz")
    if size_is_assumed and size_hw is not None and isinstance(size, list) and size != list(size_hw):
        raise InputError(
            f"its metadata says that it was made for {' x '.join(map(str, size))}, and its input takes any size; say "
            "which one to use (input_size_hw, --detector-size)"
        )


def choose_classes(
    classes: Sequence[int | str] | None, metadata: Mapping[str, str], form: DetectorFormat
) -> tuple[int, ...]:
    """The indices of the wanted classes.

    Args:
        classes: Indices from 0, or names where the file has names; the format's person when None.
        metadata: The ONNX file's ``metadata_props``.
        form: As declared.

    Raises:
        InputError: No class, an index below 0 or beyond the file's names, an unknown name, or no classes were named
            and the file calls the format's person otherwise.
    """
    names = _class_names(metadata)
    if classes is None:
        found = names.get(form.person, "person")
        if found.lower() not in _PEOPLE:
            raise InputError(
                f"its class {form.person} is {found!r} by its metadata, and {form.name} has people there; name the "
                f"classes to find: {_listed(names)}"
            )
        return (form.person,)
    chosen = tuple(dict.fromkeys(_class_index(value, names) for value in classes))
    if not chosen:
        raise InputError("classes is empty; name at least one, or leave it out for people")
    return chosen


def _class_index(value: int | str, names: Mapping[int, str]) -> int:
    if isinstance(value, str) and not value.isdecimal():
        matches = [index for index, name in names.items() if name == value]
        if not matches:
            hint = f"it has {_listed(names)}" if names else "its metadata names no classes; give their indices, from 0"
            raise InputError(f"class {value!r} is unknown: {hint}")
        return matches[0]
    index = int(value)
    if index < 0 or (names and index not in names):
        raise InputError(f"class {index} is not there; expected {_listed(names) if names else 'an index from 0'}")
    return index


def _class_names(metadata: Mapping[str, str]) -> dict[int, str]:
    """``{0: 'person', ...}`` as ultralytics writes it; empty where there is nothing of the kind."""
    names = _read(metadata, "names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(index, int) for index in names):
        return {}
    if all(str(name) == str(index) for index, name in names.items()):
        return {}  # a network that was never trained on named classes
    return {index: str(name) for index, name in names.items()}


def _read(metadata: Mapping[str, str], key: str) -> object:
    """A value that was written as a Python literal; None where it is absent or something else."""
    try:
        return ast.literal_eval(metadata.get(key, "None"))
    except (ValueError, SyntaxError):
        return None


def _listed(names: Mapping[int, str]) -> str:
    shown = [f"{index} {name}" for index, name in names.items()]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
