"""Models for the rules of lint on quantisation."""

from __future__ import annotations

import numpy as np

from tests.lint_models import (
    F16,
    F32,
    INT8,
    QDQ,
    Case,
    conv,
    default_axis,
    from_uint8,
    gemm,
    matmul,
    model,
    quantised,
    stack,
    with_scales,
)

HALF_QDQ = quantised(F16(0.1), INT8, data="float16")
MATMUL = matmul(1)
BIAS = "bd = DequantizeLinear<axis=0>(b, bs)"
QLINEAR = (
    "(float[1,4,8,8] x) => (float[A,B,C,D] y) "
    "{ q = QuantizeLinear(x, s, z) c = QLinearConv(q, s, z, w, s, z, s, z) y = DequantizeLinear(c, s, z) }"
)
INTEGER = "(float[4,8] x) => (int32[4,8] y) { q = QuantizeLinear(x, s, z) y = MatMulInteger(q, w) }"
SCALED = {"s": F32(0.1), "z": INT8}

QUANTISE_CASES = (
    Case("unsigned_zero_point", "0", quantised(F32(0.1), np.uint8(0), "uint8"), QDQ),
    Case(
        "unsigned_zero_point",
        "input",
        from_uint8("y = DequantizeLinear(x, s, z) s = Constant<value_float=0.1>() z = Constant<value=uint8 {0}>()"),
        QDQ,
    ),
    Case("missing_zero_point", "", quantised(F32(0.1), None, "uint8"), QDQ),
    Case("nonzero_zero_point", "int8", quantised(F32(0.1), np.int8(3)), QDQ),
    Case("nonzero_zero_point", "uint8", quantised(F32(0.1), np.uint8(128), "uint8"), QDQ),
    Case(
        "quantised_integer",
        "int16",
        quantised(F32(0.1), np.int16(0), "int16", opset=21),
        quantised(F32(0.1), INT8, opset=21),
    ),
    Case(
        "int32_bias",
        "",
        conv(0, BIAS, ", bd"),
        conv(0, BIAS.replace("DequantizeLinear<axis=0>(b, bs)", "Identity(bf)"), ", bd"),
    ),
    Case("scale_value", "0", quantised(F32(0), INT8), QDQ),
    Case("scale_value", "negative", quantised(F32(-0.1), INT8), QDQ),
    Case("scale_value", "NaN", quantised(F32(np.nan), INT8), QDQ),
    Case("scale_value", "infinite", quantised(F32(np.inf), INT8), QDQ),
    Case(
        "scale_type",
        "float on half",
        model(
            "(float16[1,8] x) => (float[1,8] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
            **SCALED,
        ),
        HALF_QDQ,
    ),
    Case(
        "scale_type",
        "half on float",
        model(
            "(float[1,8] x) => (float16[1,8] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
            s=F16(0.1),
            z=INT8,
        ),
        HALF_QDQ,
    ),
    Case(
        "half_quantiser_opset",
        "18",
        quantised(F16(0.1), INT8, data="float16", opset=18),
        quantised(F16(0.1), INT8, data="float16", opset=19),
    ),
    Case("scale_count", "scales", with_scales(5, 5), with_scales(6, 6)),
    Case("scale_count", "zero points", with_scales(6, 1), with_scales(6, 6)),
    Case("default_axis", "", default_axis(""), default_axis("<axis=0>")),
    Case("integer_operator", "QLinearConv", model(QLINEAR, w=np.ones((6, 4, 3, 3), np.int8), **SCALED), conv(0)),
    Case("integer_operator", "MatMulInteger", model(INTEGER, w=np.ones((8, 8), np.int8), **SCALED), MATMUL),
    Case("activation_channels", "", quantised(np.full(4, 0.1, F32), np.zeros(4, np.int8)), QDQ),
    Case("weight_axis", "Conv", conv(1), conv(0)),
    Case("weight_axis", "Gemm", gemm(0, 0), gemm(1, 0)),
    Case("weight_axis", "Gemm transposed", gemm(1, 1), gemm(0, 1)),
    Case("weight_axis", "MatMul", matmul(0), MATMUL),
    Case(
        "stacked_weight_channels",
        "",
        stack(2),
        stack(None),
    ),
)
