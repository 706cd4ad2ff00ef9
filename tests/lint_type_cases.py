"""Models for the rules of lint on element types and FLOAT16."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.lint_models import (
    F16,
    F32,
    Case,
    cast_between,
    declared,
    divided_by,
    from_uint8,
    model,
    on_pair,
    sampled,
    stored,
    through_half,
    unary,
)

GROWN = np.array([1, 2, np.inf], F16)

TYPE_CASES = (
    Case(
        "uint8_use",
        "Transpose",
        from_uint8("t = Transpose<perm=[0,3,1,2]>(x) y = Cast<to=1>(t)"),
        from_uint8("t = Cast<to=1>(x) y = Transpose<perm=[0,3,1,2]>(t)"),
    ),
    Case(
        "uint8_use",
        "Add",
        from_uint8("t = Add(x, x) y = Cast<to=1>(t)"),
        from_uint8("t = Cast<to=10>(x) y = Neg(t)", "float16[A,B,C,D] y"),
    ),
    Case(
        "uint8_use",
        "Resize",
        from_uint8("s = Constant<value_floats=[1.0,2.0,2.0,1.0]>() t = Resize(x,,s) y = Cast<to=1>(t)"),
        from_uint8("y = Identity(x)", "uint8[1,8,8,3] y"),
    ),
    Case(
        "uint8_use",
        "inside",
        cast_between("t = Cast<to=2>(x) y = Cast<to=1>(t)"),
        model("(float[8] x) => (uint8[8] y) { y = Cast<to=2>(x) }"),
    ),
    Case(
        "mixed_types",
        "Add",
        on_pair("Add(x, b)", "float16", "float", "float"),
        on_pair("Add(x, b)", "float16", "float16", "float16"),
    ),
    Case(
        "mixed_types",
        "integers",
        on_pair("Add(x, b)", "int64", "int32", "int64"),
        on_pair("Add(x, b)", "int64", "int64", "int64"),
    ),
    Case(
        "mixed_types",
        "weight",
        unary("MatMul(x, w)", "4,8", "N,M", "float16", w=np.ones((8, 4), F32)),
        unary("MatMul(x, w)", "4,8", "N,M", "float16", w=np.ones((8, 4), F16)),
    ),
    Case(
        "mixed_types",
        "Clip",
        unary("Clip(x, a)", "4,8", "N,M", "float16", a=F32(0)),
        unary("Clip(x, a)", "4,8", "N,M", "float16", a=F16(0)),
    ),
    Case("mixed_types", "grid", sampled("float16", "float"), sampled("float16", "float16")),
    Case(
        "mixed_types",
        "leftover Cast",
        model("(float16[4,8] x) => (float16[4,8] y) { c = Cast<to=1>(x) y = Add(c, b) }", b=np.ones((4, 8), F16)),
        on_pair("Pow(x, b)", "float", "float16", "float"),
    ),
    Case("declared_type", "output", declared(TensorProto.FLOAT16), declared(TensorProto.FLOAT)),
    Case(
        "declared_type",
        "inside",
        declared(TensorProto.FLOAT16, inside=True),
        declared(TensorProto.FLOAT, inside=True),
    ),
    Case("float64", "ends", unary("Relu(x)", kind="double"), unary("Relu(x)")),
    Case(
        "float64",
        "inside",
        cast_between("t = Cast<to=11>(x) u = Relu(t) y = Cast<to=1>(u)"),
        cast_between("y = Relu(x)"),
    ),
    Case(
        "absent_type", "input", cast_between("y = Cast<to=1>(x)", "int16"), cast_between("y = Cast<to=1>(x)", "int32")
    ),
    Case(
        "absent_type",
        "constant",
        cast_between("c = Cast<to=1>(u) y = Add(x, c)", u=np.ones((1, 8), np.uint16)),
        cast_between("c = Cast<to=1>(u) y = Add(x, c)", u=np.ones((1, 8), np.int32)),
    ),
    Case(
        "absent_type",
        "Cast",
        cast_between("c = Cast<to=12>(x) y = Cast<to=1>(c)"),
        cast_between("c = Cast<to=7>(x) y = Cast<to=1>(c)"),
    ),
    Case("int8_constant", "", stored(np.int8), stored(np.int32)),
    Case(
        "half_not_finite",
        "",
        unary("Add(x, b)", "1,3", "A,B", "float16", b=GROWN),
        unary("Add(x, b)", "1,3", "A,B", "float16", b=np.ones(3, F16)),
    ),
    Case(
        "half_underflow",
        "Cast",
        through_half(1e-12),
        through_half(1e-3),
    ),
    Case("half_underflow", "Clip", divided_by("Clip(n, e)", F16(0)), divided_by("Clip(n, e)", F16(1e-4))),
    Case("half_underflow", "Max", divided_by("Max(n, e)", F16(1e-12)), divided_by("Max(n, e)", F16(1e-4))),
    Case(
        "half_range",
        "ReduceL2",
        unary("ReduceL2(x, a)", "4,8", "N,M", "float16", a=np.array([1])),
        unary("ReduceL2(x, a)", "4,8", "N,M", a=np.array([1])),
    ),
    Case(
        "half_range",
        "LpNormalization",
        unary("LpNormalization<axis=1>(x)", "4,8", "N,M", "float16"),
        unary("LpNormalization<axis=1>(x)", "4,8", "N,M"),
    ),
    Case(
        "half_range",
        "GeM",
        unary("Pow(x, p)", "4,8", "N,M", "float16", p=F16(3)),
        unary("Pow(x, p)", "4,8", "N,M", p=F32(3)),
    ),
    Case(
        "half_range", "square", unary("Mul(x, x)", "4,8", "N,M", "float16"), unary("Add(x, x)", "4,8", "N,M", "float16")
    ),
)
