"""Evaluates the queries of the SDK as an engine does: lazily, each execution once, successful ones remembered."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphql import FieldNode, InlineFragmentNode, OperationDefinitionNode, parse, validate
from graphql.utilities import value_from_ast_untyped

from tests.dagger.containers import Container, Host, Refused
from tests.dagger.schema import schema

Link = tuple[str, dict[str, Any]]
"""A field with its arguments."""
Recipe = tuple[Link, ...]
"""How something came to be, from the query's root on: what an id says."""

SESSION: ContextVar[str] = ContextVar("session", default="")
"""Whose query it is."""

LEAVES = {
    "stdout",
    "stderr",
    "exitCode",
    "combinedOutput",
    "sync",
    "id",
    "export",
    "contents",
    "version",
    "start",
    "stop",
}


class Failed(Exception):
    """A query that ends with an error."""

    def __init__(self, refused: Refused, path: list[str]) -> None:
        super().__init__(str(refused))
        self.body = {
            "data": None,
            "errors": [{"message": str(refused), "path": path, "extensions": refused.extensions}],
        }


@dataclass
class Evaluation:
    """One engine's memory and the walk over queries."""

    host: Host
    environ: Callable[[], dict[str, str]]
    """Of the CLI that asks."""
    registries: dict[str, str] = field(default_factory=dict[str, str])
    """Error of each registry's host; `hang`: it never answers."""
    pulls: list[str] = field(default_factory=list[str])
    """Addresses that registries were asked for."""
    pulled: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """What needs no registry: an address with a digest for every session, one with a tag for the session that asked."""
    refuse: str = ""
    """Error of every execution."""
    done: dict[str, Container] = field(default_factory=dict[str, Container])
    seen: dict[str, Path] = field(default_factory=dict[str, Path])
    """Files of the host that this session has read."""
    hang: Callable[[], Awaitable[None]] | None = None

    async def query(self, text: str) -> dict[str, Any]:
        """The answer's body."""
        document = parse(text)
        errors = validate(schema(), document)
        if errors:
            return {"data": None, "errors": [{"message": str(errors[0].message), "path": None}]}
        [operation] = document.definitions
        assert isinstance(operation, OperationDefinitionNode)
        names: list[str] = []
        recipe: Recipe = ()
        arguments: dict[str, Any] = {}
        selections = operation.selection_set
        while selections is not None:
            [one] = selections.selections
            if isinstance(one, FieldNode):
                arguments = {a.name.value: value_from_ast_untyped(a.value) for a in one.arguments}
                names.append(one.name.value)
                if one.name.value == "node":
                    recipe = decoded(arguments["id"])
                elif one.name.value not in LEAVES:
                    recipe = (*recipe, (one.name.value, arguments))
                else:
                    break
            else:
                assert isinstance(one, InlineFragmentNode)
            selections = one.selection_set
        try:
            value = await self._leaf(recipe, names, arguments)
        except Failed as failed:
            return failed.body
        for name in reversed(names):
            value = {name: value}
        return {"data": value}

    async def _leaf(self, recipe: Recipe, names: list[str], arguments: dict[str, Any]) -> Any:
        leaf = names[-1]
        if leaf == "version":
            return "v0.21.8"
        if leaf == "id":
            return encoded(recipe)
        found = await self._value(recipe)
        if leaf == "start":
            try:
                await self.host.serve(encoded(recipe), *found)
            except Refused as refused:
                raise Failed(refused, names) from None
            return encoded(recipe)
        if leaf == "stop":
            service = self.host.services.pop(encoded(recipe), None)
            if service is not None:
                service.cancel()
            return encoded(recipe)
        if leaf == "sync":
            return encoded(recipe)
        if leaf == "export":
            target = Path(arguments["path"])
            await _copy(found, target, wipe=bool(arguments.get("wipe")))
            return str(target)
        if leaf == "contents":
            return found.read_text("utf-8")
        assert isinstance(found, Container)
        return {"stdout": found.stdout, "stderr": found.stderr, "exitCode": found.exit_code}[leaf]

    async def _value(self, recipe: Recipe) -> Any:
        """What a recipe makes: a Container, a path, or what an argument stands for."""
        value: Any = None
        for number, (name, arguments) in enumerate(recipe):
            method = getattr(self, f"_{name}", None)
            assert method is not None, f"the fake engine does not know {name}"
            try:
                value = await method(value, recipe[: number + 1], arguments)
            except Refused as refused:
                raise Failed(refused, [one for one, _ in recipe[: number + 1]]) from None
        return value

    async def _container(self, _: Any, recipe: Recipe, arguments: dict[str, Any]) -> Container:
        return Container(self.host.empty())

    async def _from(self, value: Container, recipe: Recipe, arguments: dict[str, Any]) -> Container:
        address: str = arguments["address"]
        known = ("" if "@" in address else SESSION.get(), address)
        if known in self.pulled:
            return value
        self.pulls.append(address)
        host = address.partition("/")[0]
        host = host if "." in host or ":" in host else "docker.io"
        error = self.registries.get(host)
        if error == "hang":
            assert self.hang is not None
            await self.hang()
        if error:
            raise Refused(error)
        self.pulled.add(known)
        return value

    async def _import(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        await self._value(decoded(arguments["source"]))
        return value

    async def _withRootfs(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        path = await self._value(decoded(arguments["directory"]))
        root = Path(tempfile.mkdtemp(dir=self.host.folder)) / "root"
        shutil.copytree(path, root, symlinks=True)
        return replace(value, root=root)

    async def _withWorkdir(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        return replace(value, workdir=os.path.normpath(Path(value.workdir) / arguments["path"]))

    async def _withEnvVariable(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        return replace(
            value, environment=(*value.environment, (arguments["name"], arguments["value"]))
        )

    async def _withVolatileVariable(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        return replace(value, volatile=(*value.volatile, (arguments["name"], arguments["value"])))

    async def _withSecretVariable(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        text = await self._value(decoded(arguments["secret"]))
        return replace(value, secrets=(*value.secrets, (arguments["name"], text)))

    async def _withMountedDirectory(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        path = await self._value(decoded(arguments["source"]))
        writable = not arguments.get("readOnly")
        return replace(value, mounts=(*value.mounts, (arguments["path"], path, writable)))

    async def _withMountedFile(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        path = await self._value(decoded(arguments["source"]))
        return replace(value, mounts=(*value.mounts, (arguments["path"], path, True)))

    async def _withMountedCache(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        path = await self._value(decoded(arguments["cache"]))
        return replace(value, mounts=(*value.mounts, (arguments["path"], path, True)))

    async def _withServiceBinding(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        bound = (arguments["alias"], arguments["service"])
        return replace(value, services=(*value.services, bound))

    async def _withExposedPort(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        return replace(value, ports=(*value.ports, arguments["port"]))

    async def _asService(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> tuple[Container, list[str]]:
        return value, arguments.get("args") or ["sleep", "1000"]

    async def _withExec(
        self, value: Container, recipe: Recipe, arguments: dict[str, Any]
    ) -> Container:
        if self.refuse:
            raise Refused(self.refuse)
        key = _key(value, recipe)
        if key not in self.done:
            for _, name in value.services:
                await self.host.serve(name, *await self._value(decoded(name)))
            work = self.host.execute(
                value,
                arguments["args"],
                arguments.get("stdin", ""),
                arguments.get("expect", "SUCCESS"),
            )
            self.done[key] = await self.host.beside(value, work)
        return self.done[key]

    async def _directory(self, value: Any, recipe: Recipe, arguments: dict[str, Any]) -> Path:
        return await self._path(value, arguments)

    async def _file(self, value: Any, recipe: Recipe, arguments: dict[str, Any]) -> Path:
        return await self._path(value, arguments)

    async def _path(self, value: Any, arguments: dict[str, Any]) -> Path:
        if isinstance(value, Container):
            return value.where(arguments["path"])
        source = Path(arguments["path"])
        if not source.exists():
            raise Refused(f"lstat {source}: no such file or directory")
        if arguments.get("noCache") or str(source) not in self.seen:
            copy = Path(tempfile.mkdtemp(dir=self.host.folder)) / "copy"
            await _copy(source, copy)
            self.seen[str(source)] = copy
        return self.seen[str(source)]

    async def _host(self, _: Any, recipe: Recipe, arguments: dict[str, Any]) -> None:
        return None

    async def _cacheVolume(self, _: Any, recipe: Recipe, arguments: dict[str, Any]) -> Path:
        path = self.host.folder / f"cache-{arguments['key']}"
        path.mkdir(exist_ok=True)
        return path

    async def _secret(self, _: Any, recipe: Recipe, arguments: dict[str, Any]) -> str:
        kind, _, place = arguments["uri"].partition("://")
        try:
            return self.environ()[place] if kind == "env" else Path(place).read_text("utf-8")
        except (KeyError, OSError):
            raise Refused(f"failed to read secret {kind}://{place}: not found") from None

    async def _setSecret(self, _: Any, recipe: Recipe, arguments: dict[str, Any]) -> str:
        return arguments["plaintext"]


def _key(before: Container, recipe: Recipe) -> str:
    """What an engine compares: not volatile variables, but the texts of secrets that have a reference."""
    kept = [link for link in recipe if link[0] != "withVolatileVariable"]
    texts = [] if "setSecret" in json.dumps(kept) else list(before.secrets)
    return hashlib.sha256(json.dumps([kept, texts]).encode()).hexdigest()


async def _copy(source: Path, target: Path, *, wipe: bool = False) -> None:
    if source.is_dir():
        if wipe and target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def encoded(recipe: Recipe) -> str:
    return base64.b64encode(json.dumps(recipe).encode()).decode()


def decoded(text: str) -> Recipe:
    return tuple((name, arguments) for name, arguments in json.loads(base64.b64decode(text)))
