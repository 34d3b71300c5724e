"""Make the interpreter look as a plain `python3 agent.py` would to the agent: path, modules, environment, streams.

Runs as: the runner, in the sandbox, once, before the agent's first line.
Reads from strangers: names of files in the agent's folder, and a manifest that was checked.
After this the runner itself must not import anything: names in sys.modules may be the agent's from here on.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import itertools
import os
import signal
import site
import sys
import threading
import time
import types

from runagentd.wire.manifest import Manifest

PLAIN_PYTHON_HAS = frozenset(
    {
        "_collections_abc", "_frozen_importlib", "_frozen_importlib_external", "_sitebuiltins", "abc", "codecs",
        "encodings", "genericpath", "io", "os", "posixpath", "site", "stat", "zipimport",
    }
)  # fmt: skip
"""What `python3 script.py` has imported before the script's first line: its own os.py does not win there either."""

_replaced: list[object] = []
"""What `prepare` takes away and nobody needs: to free it would write to a hundred pages shared with the zygote."""

_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_BUILT_IN = frozenset(sys.builtin_module_names)
_PACKAGE = __name__.partition(".")[0]
_MAIN = "__main__"


def prepare(manifest: Manifest, app_path: str) -> None:
    """All that neither runs code of the agent's nor takes its word for anything but names of files, in order."""
    _signals()
    _main_thread()
    os.chdir(app_path)
    _streams()
    first_file = manifest.entrypoints[0].file
    sys.argv = [first_file]
    sys.orig_argv = ["python3", first_file]
    entry_folders = [os.path.dirname(os.path.join(app_path, entrypoint.file)) for entrypoint in manifest.entrypoints]
    _path([app_path, *entry_folders])
    _hide_runner()
    _new_main()
    forget_shadowed(own_names(dict.fromkeys([app_path, *entry_folders])))
    _builtins()


def forget_replaced() -> None:
    """For a rehearsal, which puts everything back."""
    _replaced.clear()


def _signals() -> None:
    """What Python sets when it starts, and the launcher undid."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _main_thread() -> None:
    """CPython remembers the kernel's number of a thread: it would be the zygote's, as it is known on the host."""
    remember = getattr(threading.main_thread(), "_set_native_id", None)
    if remember is not None:
        remember()


def _environment(manifest: Manifest) -> None:
    os.environ.clear()
    os.environ.update(
        {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/app", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "USER": "agent"}
    )
    os.environ.update((variable.name, variable.value) for variable in manifest.environment)
    time.tzset()


def _streams() -> None:
    """New text layers: the zygote's were made for other descriptors, and block-buffered."""

    def writer(descriptor: int) -> io.TextIOWrapper:
        raw = io.FileIO(descriptor, "w", closefd=False)
        return io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n"
        )

    _replaced.extend((sys.stdin, sys.stdout, sys.stderr))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(  # type: ignore[misc]  # typeshed has it final; Python has not
        io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8"
    )
    sys.stdout = sys.__stdout__ = writer(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = writer(2)  # type: ignore[misc]


def _path(folders: list[str]) -> None:
    """The agent's folders first, then the standard library: nothing else of the zygote's path stays."""
    library = os.path.dirname(os.__file__)
    parent = os.path.dirname(library)
    standard = (os.path.join(parent, f"python{sys.version_info.major}{sys.version_info.minor}.zip"), library)
    kept = [entry for entry in sys.path if entry in standard or entry == os.path.join(library, "lib-dynload")]
    sys.path[:] = list(dict.fromkeys([*folders, *kept]))
    _replaced.append(dict(sys.path_importer_cache))
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [
        importlib.machinery.BuiltinImporter,
        importlib.machinery.FrozenImporter,
        importlib.machinery.PathFinder,
    ]


def _hide_runner() -> None:
    """Our modules live on in their functions' globals; the agent's modules of these names win."""
    for name in ours():
        _replaced.append(sys.modules.pop(name))


def _new_main() -> None:
    """As the last of all modules: what comes after it was imported since."""
    main = types.ModuleType(_MAIN)
    main.__dict__["__builtins__"] = builtins
    _replaced.append(sys.modules.pop(_MAIN, None))
    sys.modules[_MAIN] = main


def ours() -> dict[str, types.ModuleType]:
    """The modules of this program, found from package to package.

    Not by a look at each name in sys.modules: that writes to a page of each, to count a reference, and an instance
    shares with the zygote only what nobody writes to: 0.8 MB (measured 2026-11-28).
    """
    found: dict[str, types.ModuleType] = {}
    names = [_PACKAGE]
    while names:
        name = names.pop()
        module = sys.modules.get(name)
        if module is not None:
            found[name] = module
            if hasattr(module, "__path__"):
                names += [f"{name}.{below}" for below, value in vars(module).items() if type(value) is types.ModuleType]
    return found


def imported_since() -> list[str]:
    """The names of the modules that were imported since `prepare`, the last one first; see `ours`."""
    return list(itertools.takewhile(_MAIN.__ne__, reversed(sys.modules)))


def own_names(folders: dict[str, None]) -> set[str]:
    """The top-level module names that the agent's folders define."""
    names: set[str] = set()
    for folder in folders:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            stem = entry.name.partition(".")[0]
            if entry.name.endswith(_SUFFIXES):
                names.add(stem)
            elif stem == entry.name and entry.is_dir():
                # Without an __init__ a folder is a namespace package, which never wins over a regular module.
                if any(os.path.exists(os.path.join(entry.path, "__init__" + suffix)) for suffix in _SUFFIXES):
                    names.add(stem)
    return names


def forget_shadowed(names: set[str]) -> None:
    """Let the agent import its own module where the zygote has one of the same name from the standard library.

    The runner goes on with the one it has: it holds references, and asks sys.modules for nothing.
    """
    lost = names - PLAIN_PYTHON_HAS - _BUILT_IN - {_MAIN}
    if not any(name in sys.modules for name in lost):
        return  # as nearly always; see `ours`
    for name in [name for name in sys.modules if name.partition(".")[0] in lost]:
        del sys.modules[name]


def _builtins() -> None:
    """exit, quit, copyright, help: `site` adds them at start, and the zygote runs without it."""
    site.setquit()
    site.setcopyright()
    site.sethelper()


def complete(manifest: Manifest, app_path: str, environment: str) -> None:
    """What is the agent's own: its variables, and its libraries.

    They come after the standard library, as site-packages do everywhere. The `.pth` files of a `.venv` are code, as in
    a real one; those of `environment`, which others wrote, are not looked at, and neither is its sitecustomize.
    """
    _environment(manifest)
    if environment:
        sys.path.append(environment)
    for folder in [os.path.join(app_path, folder) for folder in manifest.import_paths]:
        try:
            site.addsitedir(folder)
        except Exception as error:  # noqa: BLE001  (a line of a .pth file is code of the agent's)
            sys.stderr.write(f"runagentd: {folder}: a .pth file failed: {type(error).__name__}: {error}\n")
