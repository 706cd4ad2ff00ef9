"""Models for the rules of lint on files and operators."""

from __future__ import annotations

import numpy as np

from tests.lint_models import (
    F32,
    PLAIN,
    Case,
    chain,
    model,
    resize,
    resize_axes,
    roi_align,
    sampled,
    unary,
    versioned,
    with_constant,
    with_data,
    with_data_elsewhere,
    with_second_node,
)

MICROSOFT = ', "com.microsoft" : 1'
CROP = sampled("float", "float")

GRAPH_CASES = (
    Case("opset", "old", versioned(8), versioned(20)),
    Case("opset", "new", versioned(22), versioned(19)),
    Case("ir_version", "new", versioned(20, 11), versioned(20, 10)),
    Case("graph_outputs", "none", model("(float[1,3] x) => () { y = Relu(x) }"), PLAIN),
    Case(
        "duplicate_name",
        "output",
        model("(float[1,3] x) => (float[1,3] y) { t = Relu(x) t = Abs(x) y = Neg(t) }"),
        PLAIN,
    ),
    Case("duplicate_name", "constant", with_constant("b"), with_constant("c")),
    Case("duplicate_name", "node", with_second_node("first"), with_second_node("second")),
    Case("missing_tensor", "input", chain("t = Relu(nowhere)", "y = Neg(t)"), PLAIN),
    Case("missing_tensor", "output", chain("t = Relu(x)", "u = Neg(t)"), PLAIN),
    Case("missing_data", "short", with_data(8), with_data(12)),
    Case("missing_data", "elsewhere", with_data_elsewhere(), with_data(12)),
    Case("fixed_batch", "one", unary("Relu(x)"), unary("Relu(x)", "N,3,8,8")),
    Case("unknown_operator", "name", unary("NoSuchOperator(x)"), unary("Gelu(x)")),
    Case("unknown_operator", "opset", unary("Gelu(x)", opset=19), unary("Gelu(x)", opset=20)),
    Case("foreign_domain", "own", unary("my.ops.Foo(x)", imports=', "my.ops" : 1'), PLAIN),
    Case("foreign_domain", "same name", unary("my.ops.Relu(x)", imports=', "my.ops" : 1'), PLAIN),
    Case(
        "foreign_domain",
        "microsoft",
        unary("com.microsoft.QuickGelu(x)", imports=MICROSOFT),
        unary("Relu(x)", imports=MICROSOFT),
    ),
    Case(
        "plugin",
        "nms",
        model("(float[1,9,4] b, float[1,9,2] s) => (int32[1,1] n) { n, o, p, q = EfficientNMS_TRT(b, s) }"),
        PLAIN,
    ),
    Case("operator_not_imported", "Det", unary("Det(x)", "1,3,3", "A"), PLAIN),
    Case("operator_not_imported", "Unique", unary("Unique(x)", "8", "N"), PLAIN),
    Case("operator_not_imported", "STFT on 10", unary("STFT(x, a,, a)", "1,64,1", "A,B,C,D", a=np.int64(8)), PLAIN),
    Case("resize", "antialias", resize('mode="linear",antialias=1'), resize('mode="linear"')),
    Case(
        "resize",
        "symmetric",
        resize('coordinate_transformation_mode="half_pixel_symmetric"'),
        resize('coordinate_transformation_mode="asymmetric"'),
    ),
    Case(
        "resize",
        "tf nearest",
        resize('nearest_mode="floor",coordinate_transformation_mode="tf_half_pixel_for_nn"'),
        resize('coordinate_transformation_mode="tf_half_pixel_for_nn"'),
    ),
    Case(
        "resize",
        "crop",
        unary(
            'Resize<mode="linear",coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
            s=np.array([1, 1, 2, 2], F32),
            r=np.array([0, 0, 0, 0, 1, 1, 1, 1], F32),
        ),
        resize('coordinate_transformation_mode="align_corners"'),
    ),
    Case(
        "resize",
        "aspect",
        unary('Resize<mode="linear",keep_aspect_ratio_policy="not_larger">(x,,,n)', n=np.array([1, 3, 16, 16])),
        unary('Resize<mode="linear">(x,,,n)', n=np.array([1, 3, 16, 16])),
    ),
    Case("resize", "axes", resize_axes("same"), resize_axes("s")),
    Case("resize", "cubic", resize('mode="cubic"'), resize('mode="nearest"')),
    Case("resize", "outside", resize('mode="linear",exclude_outside=1'), resize('mode="linear"')),
    Case("roi_align", "default", roi_align("RoiAlign<output_height=4,output_width=4>(x, r, b)"), CROP),
    Case("roi_align", "plugin", roi_align("RoiAlign<output_height=4,output_width=4,sampling_ratio=2>(x, r, b)"), CROP),
    Case(
        "grid_sample_volume",
        "",
        model("(float[1,3,8,8,8] x, float[1,4,4,4,3] g) => (float[1,3,4,4,4] y) { y = GridSample(x, g) }"),
        CROP,
    ),
    Case(
        "pooling",
        "dilated",
        unary("MaxPool<kernel_shape=[2,2],dilations=[2,2]>(x)"),
        unary("MaxPool<kernel_shape=[2,2],dilations=[1,1]>(x)"),
    ),
    Case(
        "pooling",
        "dilated mean",
        unary("AveragePool<kernel_shape=[2,2],dilations=[1,2]>(x)"),
        unary("AveragePool<kernel_shape=[2,2]>(x)"),
    ),
    Case(
        "pooling",
        "indices",
        model("(float[1,3,8,8] x) => (float[1,3,7,7] y) { y, i = MaxPool<kernel_shape=[2,2]>(x) }"),
        unary("MaxPool<kernel_shape=[2,2]>(x)"),
    ),
    Case(
        "data_dependent_shape",
        "NonMaxSuppression",
        model("(float[1,9,4] b, float[1,1,9] s) => (int64[N,3] y) { y = NonMaxSuppression(b, s, m) }", m=np.int64(5)),
        PLAIN,
    ),
    Case("data_dependent_shape", "NonZero", model("(float[1,9] b) => (int64[2,N] y) { y = NonZero(b) }"), PLAIN),
    Case(
        "reduce_axes",
        "input",
        model("(float[1,3,8] x, int64[1] a) => (float[A,B,C] y) { y = ReduceMean(x, a) }"),
        unary("ReduceMean(x, a)", "1,3,8", "A,B,C", a=np.array([2])),
    ),
    Case(
        "reduce_axes",
        "computed",
        model("(float[1,3,8] x) => (float[A,B,C] y) { a = Neg(b) y = ReduceMax(x, a) }", b=np.array([-2])),
        model("(float[1,3,8] x) => (float[A,B,C] y) { a = Identity(b) y = ReduceMax(x, a) }", b=np.array([2])),
    ),
)
