"""What a double fakes and what the real library has, in the same words, and what does not agree.

As a script, in an interpreter that can import the module that is named as its argument: what is faked as JSON on
stdin, what does not agree as JSON on stdout. It needs the standard library alone.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import sys
from importlib import import_module
from types import MemberDescriptorType
from typing import Any

Entry = dict[str, Any]
"""``kind``: class, method, property or value. A method has ``signatures``, a property may be ``writable``.

A signature is a list of parameters without self: [name, whether a value must be given]; the name is empty where only
the place counts. ``*`` stands for any number of those.
"""


def describe(names: dict[str, Any]) -> dict[str, Entry]:
    """What a double fakes: ``Stream.synchronize`` to its entry."""
    found: dict[str, Entry] = {}
    for name, value in names.items():
        _describe(name, value, found)
    return found


def problems(faked: dict[str, Entry], real: dict[str, Entry]) -> list[str]:
    """What a call that the double takes would meet in the real library, in words, sorted."""
    found = []
    for name, entry in sorted(faked.items()):
        if name not in real:
            found.append(f"{name} is not there")
        elif real[name]["kind"] != entry["kind"]:
            found.append(f"{name} is a {real[name]['kind']}, not a {entry['kind']}")
        elif entry.get("writable") and not real[name].get("writable", True):
            found.append(f"{name} cannot be set")
        elif entry.get("results") and real[name].get("results", entry["results"]) != entry["results"]:
            found.append(f"{name} gives {real[name]['results']} values, not {entry['results']}")
        elif entry["kind"] == "method":
            given, known = entry["signatures"][0], real[name]["signatures"]
            if not any(_accepts(signature, given) for signature in known):
                found.append(f"{name} takes {' or '.join(map(_words, known))}, not {_words(given)}")
    return found


def describe_bindings(module: Any, names: list[str]) -> dict[str, Entry]:
    """What pybind11's or Cython's module has of the names."""
    found: dict[str, Entry] = {}
    for name in names:
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            found[name] = _describe_real(name.rpartition(".")[2], value)
    return found


def _describe(name: str, value: Any, found: dict[str, Entry]) -> None:
    if isinstance(value, type):
        found[name] = {"kind": "class"}
        for member, content in vars(value).items():
            if member in ("__init__", "__int__") or not member.startswith("_"):
                _describe_member(f"{name}.{member}", content, found)
    elif callable(value):
        found[name] = {"kind": "method", "signatures": [_parameters(value, False)], "results": _results(value)}
    else:
        found[name] = {"kind": "value"}


def _describe_member(name: str, value: Any, found: dict[str, Entry]) -> None:
    if isinstance(value, type):
        _describe(name, value, found)
    elif isinstance(value, property | MemberDescriptorType):
        writable = isinstance(value, MemberDescriptorType) or value.fset is not None
        found[name] = {"kind": "property", "writable": writable}
    elif isinstance(value, staticmethod):
        found[name] = {"kind": "method", "signatures": [_parameters(value.__func__, False)]}
    elif inspect.isfunction(value):
        if value.__annotations__.get("return") != "NoReturn":  # a class that Python cannot make
            found[name] = {"kind": "method", "signatures": [_parameters(value, True)]}
    else:
        found[name] = {"kind": "value"}


def _parameters(function: Any, has_self: bool) -> list[list[Any]]:
    parameters = list(inspect.signature(function).parameters.values())[int(has_self) :]
    return [
        ["" if one.kind is one.POSITIONAL_ONLY else one.name, one.default is inspect.Parameter.empty]
        for one in parameters
    ]


def _results(function: Any) -> int:
    """Length of the tuple that an annotation promises, or 0."""
    given = re.fullmatch(r"tuple\[(.*)\]", str(function.__annotations__.get("return", "")))
    return given.group(1).count(",") + 1 if given else 0


def _describe_real(name: str, value: Any) -> Entry:
    if isinstance(value, type):
        return {"kind": "class"}
    if isinstance(value, property):
        return {"kind": "property", "writable": value.fset is not None}
    if not callable(value) or isinstance(value, enum.Enum):
        return {"kind": "value"}
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", value.__doc__ or "", re.MULTILINE)
    signatures = [_read_parameters(line) for line in lines if not line.startswith("*args")]
    if signatures:
        return {"kind": "method", "signatures": signatures}
    entry: Entry = {"kind": "method", "signatures": [_parameters(value, False)]}
    if section := re.search(r"Returns\n-+\n(.*?)(?:\n\n|\Z)", value.__doc__ or "", re.DOTALL):
        entry["results"] = sum(not line.startswith(" ") for line in section.group(1).splitlines())
    return entry


def _read_parameters(line: str) -> list[list[Any]]:
    """What pybind11 writes: ``self: module.Class, name: str, index: typing.SupportsInt = 0``."""
    parts, depth = [""], 0
    for letter in line:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    pairs = [part.strip().partition(":") for part in parts if part.strip()]
    return [
        ["" if re.fullmatch(r"arg\d+", name) else name, " = " not in rest] for name, _, rest in pairs if name != "self"
    ]


def _accepts(real: list[list[Any]], faked: list[list[Any]]) -> bool:
    if real == [["*", False]]:
        return not any(name for name, _ in faked)
    if len(faked) > len(real) or any(required for _, required in real[len(faked) :]):
        return False
    return all(
        (not name or name == real_name) and (required or not real_required)
        for (name, required), (real_name, real_required) in zip(faked, real, strict=False)
    )


def _words(signature: list[list[Any]]) -> str:
    return f"({', '.join((name or '_') + ('' if required else '=') for name, required in signature)})"


if __name__ == "__main__":
    wanted: dict[str, Entry] = json.load(sys.stdin)
    json.dump(problems(wanted, describe_bindings(import_module(sys.argv[1]), list(wanted))), sys.stdout)
