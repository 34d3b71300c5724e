"""Which iris is it? A pipeline of scikit-learn's, trained by make_model.py."""

from collections.abc import Iterator

import joblib
import numpy

model = joblib.load("model.joblib")


def predict(flowers: list[list[float]]) -> numpy.ndarray:
    """The kinds of flowers of four measures each, in cm: sepals' length and width, petals' length and width."""
    return model.predict(numpy.array(flowers))


def predict_stream(flowers: list[list[float]]) -> Iterator[dict[str, float]]:
    """How likely each kind is, for one flower after the other."""
    for flower in flowers:
        likely = model.predict_proba(numpy.array([flower]))[0]
        yield dict(zip(model.classes_.tolist(), likely.round(3).tolist(), strict=True))
