"""Find the agent's own modules, so that each file is imported once, by whatever name it is asked for.

Runs as: the runner, in the sandbox.
Reads from strangers: yes: importing runs the agent's code.
Agents write `from .sibling import x` in files that belong to no package, beside `import sibling` in others
(docs/writing-agents.md). Here the agent's folder is a package, `FOLDER`, to which every module in it
belongs; a file that was imported under one name is the same module under every other.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from runagentd.runner import surroundings

FOLDER = "__agent__"
"""The package that the agent's folder is; no file can have this name and be imported by it in earnest."""

_import_module = importlib.import_module


class _SiblingSpec(ModuleSpec):
    """The spec of a module that lies in the agent's folder: relative imports in it start at that folder."""

    folder_package = FOLDER

    @property
    def parent(self) -> str | None:
        return self.folder_package


class _SiblingLoader(SourceFileLoader):
    """Make a module known under its name within the folder too, before its first line.

    An alias that is found later would be bound once more as an attribute of its package, over what the package has
    put there since: `from .tool import tool` in an __init__.py.
    """

    def exec_module(self, module: types.ModuleType) -> None:
        name = f"{FOLDER}.{module.__name__}"
        sys.modules.setdefault(name, module)
        try:
            super().exec_module(module)
        except BaseException:
            if sys.modules.get(name) is module:
                del sys.modules[name]
            raise


class _Alias:
    """A loader that gives a module which has been imported under another name."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return self._module

    def exec_module(self, module: types.ModuleType) -> None:
        # The import system has just written the alias's spec over the module's own.
        module.__spec__ = self._spec


class AgentFinder:
    """A meta path finder for the agent's folder; everything else is left to the finders after it."""

    def __init__(self, app_path: str, not_below: Sequence[str]) -> None:
        self._app = app_path
        self._within = app_path.rstrip("/") + "/"
        self._not_below = tuple(path.rstrip("/") + "/" for path in not_below)
        self._names: dict[str, str] = {}
        """the name under which each file was first found"""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name == FOLDER:
            return self._folder()
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not self._is_own(spec):
            return spec
        if name.startswith(FOLDER + "."):
            return self._relative(name, spec)
        if spec.origin is None or not spec.has_location:
            return spec
        module = self._loaded(spec.origin)
        if module is not None:
            return _alias(name, module)
        self._names[spec.origin] = name
        return self._sibling(spec)

    def _folder(self) -> ModuleSpec:
        init = os.path.join(self._app, "__init__.py")
        if os.path.isfile(init):
            spec = spec_from_file_location(FOLDER, init, submodule_search_locations=[self._app])
            if spec is not None:
                return spec
        spec = ModuleSpec(FOLDER, None, is_package=True)
        spec.submodule_search_locations = [self._app]
        return spec

    def _is_own(self, spec: ModuleSpec) -> bool:
        places = [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or ())
        return any(place.startswith(self._within) and not place.startswith(self._not_below) for place in places)

    def _relative(self, name: str, spec: ModuleSpec) -> ModuleSpec:
        """A relative import: the same module as the absolute import of that file, where that leads there."""
        if spec.origin is not None and (module := self._loaded(spec.origin)) is not None:
            return _alias(name, module)
        plain = name[len(FOLDER) + 1 :]
        found = sys.modules.get(plain)
        if found is None and self._leads_to(plain, spec):
            found = _import_module(plain)
        if found is not None and _same_place(found, spec):
            return _alias(name, found)
        if spec.origin is not None:
            self._names[spec.origin] = name
        return spec

    def _leads_to(self, plain: str, spec: ModuleSpec) -> bool:
        if plain.partition(".")[0] in sys.builtin_module_names:
            return False
        try:
            other = importlib_find(plain)
        except (ImportError, ValueError, AttributeError):
            return False
        return other is not None and other.origin == spec.origin

    def _loaded(self, origin: str) -> types.ModuleType | None:
        return sys.modules.get(self._names.get(origin, ""))

    def _sibling(self, spec: ModuleSpec) -> ModuleSpec:
        """The spec again, with the folder that the file lies in as the package for its relative imports."""
        origin = spec.origin or ""
        below = os.path.dirname(origin)[len(self._within) :]
        parts = [FOLDER, *(part for part in below.split("/") if part)]
        if not all(part.isidentifier() for part in parts):
            return spec
        is_package = spec.submodule_search_locations is not None
        loader = _SiblingLoader(spec.name, origin) if type(spec.loader) is SourceFileLoader else spec.loader
        sibling = _SiblingSpec(spec.name, loader, origin=spec.origin, is_package=is_package)
        sibling.folder_package = ".".join(parts)
        sibling.submodule_search_locations = spec.submodule_search_locations
        sibling.has_location = spec.has_location
        sibling.cached = spec.cached
        return sibling


importlib_find = importlib.util.find_spec


def _same_place(module: types.ModuleType, spec: ModuleSpec) -> bool:
    if spec.origin is not None:
        return getattr(module, "__file__", None) == spec.origin
    return list(getattr(module, "__path__", ())) == list(spec.submodule_search_locations or ())


def _alias(name: str, module: types.ModuleType) -> ModuleSpec:
    spec = ModuleSpec(name, _Alias(module))  # type: ignore[arg-type]  # a loader by its two methods, as importlib wants
    spec.submodule_search_locations = list(module.__path__) if hasattr(module, "__path__") else None
    return spec


def install(app_path: str, not_below: Sequence[str]) -> AgentFinder:
    """Put the finder before Python's own finder of paths, after those of built-in and frozen modules."""
    finder = AgentFinder(app_path, not_below)
    position = sys.meta_path.index(PathFinder)
    sys.meta_path.insert(position, finder)
    return finder


def import_file(app_path: str, file: str) -> types.ModuleType:
    """The module of one entry file, `file` relative to the agent's folder; raises whatever its import raises."""
    path = os.path.join(app_path, file)
    for name in surroundings.imported_since():
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType) and vars(module).get("__file__") == path:
            return module
    name = file.removesuffix(".py").replace("/", ".")
    if all(part.isidentifier() for part in name.split(".")):
        for candidate in (name, f"{FOLDER}.{name}"):
            if candidate.partition(".")[0] in sys.builtin_module_names or candidate in sys.modules:
                continue  # taken: an agent's time.py can only be reached as part of its folder
            try:
                spec = importlib_find(candidate)
            except ModuleNotFoundError:  # a parent that is somebody else's
                continue
            if spec is not None and spec.origin == path:
                return _import_module(candidate)
    return _import_by_path(path, "".join(c if c.isalnum() else "_" for c in name))


def _import_by_path(path: str, name: str) -> types.ModuleType:
    """For a file that no import statement could name ("my-agent.py")."""
    spec = spec_from_file_location(f"{FOLDER}.{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file", path=path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module
