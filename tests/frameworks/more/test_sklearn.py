"""scikit-learn: a model beside the code, loaded by the import."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "sklearn", "base"


FLOWERS = {"flowers": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.2, 1.3], [6.7, 3.1, 5.6, 2.4]]}


def test_a_model_predicts(served: Daemon) -> None:
    assert served.call(AGENT, "predict", FLOWERS) == (200, ["setosa", "versicolor", "virginica"])


def test_predictions_stream(served: Daemon) -> None:
    likely = chunks(served, AGENT, "predict_stream", FLOWERS)
    assert [max(one, key=one.__getitem__) for one in likely] == ["setosa", "versicolor", "virginica"]
    assert [round(sum(one.values()), 2) for one in likely] == [1.0, 1.0, 1.0]
