"""Write model.onnx: `python make_model.py` in this folder, with the package `onnx` beside those of requirements.txt.

A file of ONNX is a graph of known operators and their weights; there is no code in it.
"""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = [[1.0, -1.0], [0.5, 0.25], [-2.0, 3.0]]
BIAS = [0.5, -0.5]

if __name__ == "__main__":
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "weights", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["likely"]),
            helper.make_node("ArgMax", ["scores"], ["kind"], axis=1, keepdims=0),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [
            helper.make_tensor_value_info("kind", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("likely", TensorProto.FLOAT, ["rows", 2]),
        ],
        [
            numpy_helper.from_array(numpy.array(WEIGHTS, numpy.float32), "weights"),
            numpy_helper.from_array(numpy.array(BIAS, numpy.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, "model.onnx")
