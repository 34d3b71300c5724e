"""The same function in LitServe: one API server, one worker process, no batches.

Runs as: a process of its own, in LitServe's environment.
Reads from strangers: the load generator's requests, on 127.0.0.1.
No annotations from the future: LitServe reads the request's type at run time.
"""

import argparse
from typing import Any

import litserve


class Echo(litserve.LitAPI):
    """Takes `{"text": …}` and gives the text back."""

    def setup(self, device: str) -> None:
        """Nothing is loaded."""

    def decode_request(self, request: dict[str, Any], **_: Any) -> Any:
        return request["text"]

    def predict(self, x: Any, **_: Any) -> Any:
        return x

    def encode_response(self, output: Any, **_: Any) -> Any:
        return {"output": output}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    served = litserve.LitServer(Echo(api_path="/echo"), accelerator="cpu", workers_per_device=1, timeout=30)
    served.run(
        host="127.0.0.1", port=arguments.port, num_api_servers=1, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
