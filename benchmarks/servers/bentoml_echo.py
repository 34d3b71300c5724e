"""The same function as a service of BentoML's.

Runs as: `bentoml serve`, in BentoML's environment.
Reads from strangers: the load generator's requests, on 127.0.0.1.
No annotations from the future: BentoML reads the function's types at run time.
"""

import bentoml


@bentoml.service(workers=1, traffic={"timeout": 30})
class Echo:
    """Takes `{"text": …}` and gives the text back."""

    @bentoml.api(route="/echo")
    async def echo(self, text: str) -> str:
        return text
