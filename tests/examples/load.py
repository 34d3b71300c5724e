"""Import an example the way the runner does: its own folder first on the path, and nothing of it left afterwards.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextmanager
def example(folder: str, module: str) -> Iterator[ModuleType]:
    """The module `module` of `examples/folder`; its siblings are importable only inside the block."""
    here = EXAMPLES / folder
    names = {path.stem for path in here.glob("*.py")}
    sys.path.insert(0, str(here))
    try:
        yield importlib.import_module(module)
    finally:
        sys.path.remove(str(here))
        for name in names:
            sys.modules.pop(name, None)
