"""onnxruntime: a model without code in it beside the agent's."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "onnx", "base"


# make_model.py's weights: scores of [1, 2, 0] are 1 + 1 + 0.5 and -1 + 0.5 - 0.5, of [0, 0, 1] -1.5 and 2.5.
ROWS = {"rows": [[1, 2, 0], [0, 0, 1]]}


def test_a_model_predicts(served: Daemon) -> None:
    assert served.call(AGENT, "predict", ROWS) == (200, [0, 1])


def test_predictions_stream(served: Daemon) -> None:
    likely = chunks(served, AGENT, "predict_stream", ROWS)
    assert [[round(one, 4) for one in row] for row in likely] == [[0.9707, 0.0293], [0.018, 0.982]]
