"""A linear model in ONNX's runtime; make_model.py has its weights."""

from collections.abc import Iterator

import numpy
import onnxruntime

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1  # as many as the policy `base` grants processors
session = onnxruntime.InferenceSession("model.onnx", _options, providers=["CPUExecutionProvider"])


def predict(rows: list[list[float]]) -> numpy.ndarray:
    """The kind, 0 or 1, of each row of three numbers."""
    return session.run(["kind"], {"x": numpy.array(rows, numpy.float32)})[0]


def predict_stream(rows: list[list[float]]) -> Iterator[numpy.ndarray]:
    """How likely each kind is, one row after the other."""
    for row in rows:
        yield session.run(["likely"], {"x": numpy.array([row], numpy.float32)})[0][0]
