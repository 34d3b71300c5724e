"""Train model.joblib: `python make_model.py`, with the versions of requirements.txt, in this folder.

The data come with scikit-learn. A file of joblib is a pickle: loading it runs what is in it, in the agent's sandbox.
"""

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if __name__ == "__main__":
    flowers = load_iris()
    names = flowers.target_names[flowers.target]
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(flowers.data, names), "model.joblib")
