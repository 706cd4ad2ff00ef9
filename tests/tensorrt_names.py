"""Which names of TensorRT a source touches, and which of them some bindings lack.

As a script, in an interpreter that can import ``tensorrt_bindings``: names as a JSON list on stdin, what is missing as
a JSON list on stdout. It needs the standard library alone.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODULE = "trt"
"""What the sources call the bindings."""
OBJECTS = {
    "_builder_config": "IBuilderConfig",
    "_context": "IExecutionContext",
    "_engine": "ICudaEngine",
    "builder": "Builder",
    "builder_config": "IBuilderConfig",
    "context": "IExecutionContext",
    "cuda_engine": "ICudaEngine",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "optimization_profile": "IOptimizationProfile",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "plan": "IHostMemory",
    "runtime": "Runtime",
    "tensor": "ITensor",
    "timing_cache": "ITimingCache",
}
"""The class of a variable or field of this name in a source that touches ``trt``. A variable that gets an object of
TensorRT and is not listed is reported, so the list cannot fall behind."""


def touched_names(source: str) -> set[str]:
    """What a source touches: ``trt.ILogger.Severity.ERROR``, ``trt.Builder().create_network()``.

    ``trt.Builder()`` stands for an object of that class, ``name=trt.Builder()`` for an assignment to a variable. Names
    behind ``hasattr(object, "name")`` are left out: in the body of its if, and in what follows it by ``and``.
    """
    tree = ast.parse(source)
    if not any(isinstance(node, ast.Name | ast.arg) and _name(node) == MODULE for node in ast.walk(tree)):
        return set()
    collector = _Collector()
    collector.visit(tree)
    return collector.found


def missing_names(bindings: ModuleType, names: set[str]) -> list[str]:
    """What the bindings lack of the names, in words, sorted."""
    problems = []
    for name in sorted(names):
        variable, _, chain = name.rpartition("=")
        try:
            value, is_object = _resolve(bindings, chain)
        except AttributeError as error:
            problems.append(f"{chain}: {error}")
            continue
        if not variable or not isinstance(value, type):
            continue
        if not is_object:
            problems.append(f"{variable} = {chain}: write {chain} out, a second name for it is not followed")
        elif OBJECTS.get(variable) != value.__name__:
            problems.append(f"{variable} = {chain}: add {variable!r}: {value.__name__!r} to OBJECTS")
    return problems


class _Collector(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: set[str] = set()
        self._guards: list[str] = []

    def _add(self, chain: str, variable: str = "") -> None:
        known = any(chain == guard or chain.startswith((f"{guard}.", f"{guard}(")) for guard in self._guards)
        if not known:
            self.found.add(f"{variable}={chain}" if variable else chain)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if chain := _chain(node):
            self._add(chain)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if getattr(node.func, "id", "") == "getattr" and len(node.args) == 2 and (name := _asked_for(node)):
            self._add(name)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assign(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._assign(node.target, node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._assign(node.target, node.value)
        self.generic_visit(node)

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for pair in zip(target.elts, value.elts, strict=False):
                self._assign(*pair)
        elif value is not None and (chain := _chain(value)):
            self._add(chain, _name(target))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in filter(None, map(_chain, node.bases)):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    self._add(f"{base}().{item.name}")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._branch(node.test, node.body, node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._branch(node.test, [node.body], [node.orelse])

    def _branch(self, test: ast.expr, body: Sequence[ast.AST], otherwise: Sequence[ast.AST]) -> None:
        self.visit(test)
        with self._guarded_by(test):
            for node in body:
                self.visit(node)
        for node in otherwise:
            self.visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for index, value in enumerate(node.values):
            before = node.values[:index] if isinstance(node.op, ast.And) else []
            with self._guarded_by(*before):
                self.visit(value)

    @contextmanager
    def _guarded_by(self, *tests: ast.expr) -> Iterator[None]:
        count = len(self._guards)
        for test in tests:
            for node in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]:
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "hasattr":
                    self._guards.extend(filter(None, [_asked_for(node)]))
        yield
        del self._guards[count:]


def _name(node: ast.AST) -> str:
    """The name that an expression goes by: of a variable, an argument or a field."""
    return str(getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "attr", None) or "")


def _chain(node: ast.AST) -> str | None:
    """An expression as a chain from ``trt``; None where it does not begin there."""
    if isinstance(node, ast.Call):
        chain = _chain(node.func)
        return chain and f"{chain}()"
    if isinstance(node, ast.Attribute) and (owner := _chain(node.value)):
        return f"{owner}.{node.attr}"
    if isinstance(node, ast.Name) and node.id == MODULE:
        return MODULE
    if isinstance(node, ast.Name | ast.Attribute) and (kind := OBJECTS.get(_name(node))):
        return f"{MODULE}.{kind}()"
    return None


def _asked_for(call: ast.Call) -> str | None:
    """The chain of ``hasattr(object, "name")``."""
    owner, name = _chain(call.args[0]), call.args[1]
    return f"{owner}.{name.value}" if owner and isinstance(name, ast.Constant) else None


def _resolve(bindings: ModuleType, chain: str) -> tuple[Any, bool]:
    """Follow a chain: what is there, and whether a class stands for an object of it; None where none can say.

    Raises:
        AttributeError: A name is not there.
    """
    value: Any = bindings
    is_object = False
    for name, _call in re.findall(r"\.(\w+)|(\(\))", chain):
        if name:
            if isinstance(value, property):
                value = _result(bindings, value.fget)
            if value is None:
                return None, False
            if not hasattr(value, name):
                raise AttributeError(f"{getattr(value, '__name__', value)} has no {name}")
            value, is_object = getattr(value, name), False
        else:
            value, is_object = (value if isinstance(value, type) else _result(bindings, value)), True
    return value, is_object


def _result(bindings: ModuleType, function: Any) -> Any:
    """The class of the bindings that a function gives, which its docstring says; None for any other."""
    given = re.search(r"-> [\w.:]*?(\w+)\b(?![.:\w])", getattr(function, "__doc__", None) or "")
    if given is None:
        return None
    name = given.group(1)
    # A docstring may give the name in C++: nvonnxparser::IParserError is ParserError.
    value = getattr(bindings, name, None) or getattr(bindings, name.removeprefix("I"), None)
    return value if isinstance(value, type) else None


if __name__ == "__main__":
    problems = missing_names(import_module("tensorrt_bindings"), set(json.load(sys.stdin)))
    json.dump(problems, sys.stdout)
