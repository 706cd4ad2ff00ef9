"""One model with a fault and one without for each rule of lint, and what the real parts make of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper, parser

F16, F32 = np.float16, np.float32
_RNG = np.random.default_rng(0)
_REQUANTISE = "p = QuantizeLinear(o, s, z) y = DequantizeLinear(p, s, z)"


@dataclass(frozen=True)
class Case:
    rule: str
    fault: str
    wrong: onnx.ModelProto
    right: onnx.ModelProto


def model(
    text: str, opset: int = 20, ir_version: int = 10, imports: str = "", **constants: ArrayLike
) -> onnx.ModelProto:
    """A model from ONNX's text form, with further constants as arrays."""
    made = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>\n g {text}')
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    return made


def unary(
    operator: str, shape: str = "1,3,8,8", out: str = "A,B,C,D", kind: str = "float", **given: Any
) -> onnx.ModelProto:
    """A model of one operator on ``x``."""
    return model(f"({kind}[{shape}] x) => ({kind}[{out}] y) {{ y = {operator} }}", **given)


def quantised(
    scale: ArrayLike, zero_point: ArrayLike | None, kind: str = "int8", data: str = "float", **given: Any
) -> onnx.ModelProto:
    """A Q whose result is an output, and a DQ behind it."""
    constants = {"s": scale} if zero_point is None else {"s": scale, "z": zero_point}
    operands = ", ".join(constants)
    axis = "<axis=1>" if np.size(scale) > 1 else ""
    text = (
        f"({data}[1,4,8,8] x) => ({kind}[1,4,8,8] q, {data}[1,4,8,8] y) "
        f"{{ q = QuantizeLinear{axis}(x, {operands}) y = DequantizeLinear{axis}(q, {operands}) }}"
    )
    return model(text, **constants, **given)


def weighted(
    operator: str,
    data: str,
    out: str,
    shape: tuple[int, ...],
    axis: int | None,
    tail: str = _REQUANTISE,
    bias: str = "",
) -> onnx.ModelProto:
    """An operator on quantised data and weights; the latter with a scale per channel of ``axis``, or one in all."""
    weight = _RNG.normal(size=shape).astype(F32)
    scale = F32(0.05) if axis is None else _RNG.uniform(0.01, 0.04, shape[axis]).astype(F32)
    spread = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    stored = np.clip(np.round(weight / spread), -127, 127).astype(np.int8)
    along = "" if axis is None else f"<axis={axis}>"
    text = (
        f"(float[{data}] x) => (float[{out}] y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        f"wd = DequantizeLinear{along}(w, ws, wz) {bias} o = {operator} {tail} }}"
    )
    constants = {"s": F32(0.02), "z": np.int8(0), "w": stored, "ws": scale, "wz": np.zeros_like(scale, np.int8)}
    if bias:
        constants |= {"b": np.zeros(shape[0], np.int32), "bs": scale, "bf": np.zeros(shape[0], F32)}
    return model(text, **constants)


def conv(axis: int | None, bias: str = "", operand: str = "") -> onnx.ModelProto:
    return weighted(f"Conv(d, wd{operand})", "1,6,8,8", "1,6,6,6", (6, 6, 3, 3), axis, bias=bias)


def gemm(axis: int, transposed: int) -> onnx.ModelProto:
    return weighted(f"Gemm<transB={transposed}>(d, wd)", "4,16", "4,16", (16, 16), axis)


def matmul(axis: int | None) -> onnx.ModelProto:
    return weighted("MatMul(d, wd)", "4,16", "4,16", (16, 16), axis, "y = Identity(o)")


def stack(axis: int | None) -> onnx.ModelProto:
    return weighted("MatMul(d, wd)", "3,4,16", "3,4,12", (3, 16, 12), axis, "y = Identity(o)")


def default_axis(axis: str) -> onnx.ModelProto:
    text = f"(float[1,6,8,8] x) => (float[1,6,6,6] y) {{ w = DequantizeLinear{axis}(wq, s) y = Conv(x, w) }}"
    return model(text, wq=np.ones((6, 6, 3, 3), np.int8), s=np.full(6, 0.1, F32))


def with_scales(count: int, shifts: int) -> onnx.ModelProto:
    text = "(float[1,6,8,8] x) => (float[1,6,6,6] y) { w = DequantizeLinear<axis=0>(wq, s, z) y = Conv(x, w) }"
    weight = np.ones((6, 6, 3, 3), np.int8)
    return model(text, wq=weight, s=np.full(count, 0.1, F32), z=np.zeros(shifts, np.int8))


def versioned(opset: int, ir_version: int = 10) -> onnx.ModelProto:
    return model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }", opset, ir_version)


def chain(first: str, second: str, out: str = "y") -> onnx.ModelProto:
    return model(f"(float[1,3] x) => (float[1,3] {out}) {{ {first} {second} }}", b=np.ones(3, F32))


def with_second_node(name: str) -> onnx.ModelProto:
    made = chain("t = Relu(x)", "y = Neg(t)")
    made.graph.node[0].name, made.graph.node[1].name = "first", name
    return made


def with_constant(name: str) -> onnx.ModelProto:
    made = chain("t = Add(x, b)", "y = Neg(t)")
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(3, F32), name))
    return made


def with_data(length: int) -> onnx.ModelProto:
    made = chain("t = Add(x, b)", "y = Neg(t)")
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:length]
    return made


def with_data_elsewhere() -> onnx.ModelProto:
    made = with_data(12)
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value="gone.bin")
    return made


def declared(kind: int, inside: bool = False) -> onnx.ModelProto:
    made = chain("t = Relu(x)", "y = Neg(t)")
    if inside:
        made.graph.value_info.append(helper.make_tensor_value_info("t", kind, [1, 3]))
    else:
        made.graph.output[0].type.tensor_type.elem_type = kind
    return made


def on_pair(operator: str, first: str, second: str, out: str, **constants: ArrayLike) -> onnx.ModelProto:
    return model(f"({first}[4,8] x, {second}[4,8] b) => ({out}[N,M] y) {{ y = {operator} }}", **constants)


def sampled(image: str, grid: str) -> onnx.ModelProto:
    return model(f"({image}[1,3,8,8] x, {grid}[1,4,4,2] g) => ({image}[1,3,4,4] y) {{ y = GridSample(x, g) }}")


def from_uint8(body: str, out: str = "float[A,B,C,D] y") -> onnx.ModelProto:
    return model(f"(uint8[1,8,8,3] x) => ({out}) {{ {body} }}")


def cast_between(between: str, kind: str = "float", **constants: ArrayLike) -> onnx.ModelProto:
    return model(f"({kind}[1,8] x) => (float[1,8] y) {{ {between} }}", **constants)


def stored(kind: type[np.generic]) -> onnx.ModelProto:
    return model("(float[8] x) => (float[8] y) { c = Cast<to=1>(u) y = Add(x, c) }", u=np.ones(8, kind))


def divided_by(guard: str, epsilon: ArrayLike) -> onnx.ModelProto:
    text = f"(float16[4,8] x, float16[4,8] n) => (float16[4,8] y) {{ m = {guard} y = Div(x, m) }}"
    return model(text, e=epsilon)


def resize(attributes: str) -> onnx.ModelProto:
    return unary(f"Resize<{attributes}>(x,,s)", s=np.array([1, 1, 2, 2], F32))


def resize_axes(scales: str) -> onnx.ModelProto:
    text = (
        "(float[1,3,8,8] x, float[2] given) => (float[A,B,C,D] y, float[2] same) "
        f'{{ same = Max(given, s) y = Resize<mode="linear",axes=[2,3]>(x,,{scales}) }}'
    )
    return model(text, s=np.array([2, 2], F32))


def through_half(constant: float) -> onnx.ModelProto:
    """A FLOAT constant that is added as FLOAT16."""
    text = "c = Cast<to=10>(e) d = Cast<to=10>(x) h = Add(d, c) y = Cast<to=1>(h)"
    return model(f"(float[4,8] x) => (float[4,8] y) {{ {text} }}", e=F32(constant))


def roi_align(operator: str) -> onnx.ModelProto:
    return model(
        f"(float[1,3,8,8] x, float[2,4] r) => (float[A,B,C,D] y) {{ y = {operator} }}", b=np.zeros(2, np.int64)
    )


INT8 = np.int8(0)
QDQ = quantised(F32(0.1), INT8)
PLAIN = chain("t = Relu(x)", "y = Neg(t)")
