"""Every route of the server, as its app has them, and every action of a page's routes."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from typing import Any


def all_routes(fastapi: Any) -> Iterator[tuple[str, str]]:
    """(method, path template) of each route that a slice or a page made."""
    for route in routes_of(fastapi):
        for method in sorted(route.methods):
            yield method, route.path


def all_acts(fastapi: Any) -> Iterator[str]:
    """`METHOD /path` of each route that may write; one for each action where the path names it."""
    for route in routes_of(fastapi):
        for method in sorted(route.methods - {"GET", "HEAD"}):
            actions = list(_actions(route)) if route.path.endswith(("{action}", "{step}")) else []
            for path in actions or [route.path]:
                yield f"{method} {path}"


def routes_of(fastapi: Any) -> Iterator[Any]:
    """Each route that a slice or a page made."""
    for route in fastapi.routes:
        router = getattr(route, "original_router", None)
        yield from router.routes if router is not None else []


def _actions(route: Any) -> Iterator[str]:
    """The route's path with each action that its module takes: what `action` is matched with or
    compared to, and the names in its table `DOING`."""
    module = sys.modules[inspect.unwrap(route.endpoint).__module__]
    tree = ast.parse(inspect.getsource(module))
    above = route.path.rpartition("/")[0]
    table = getattr(module, "DOING", {})
    if "{section}" in above:
        for section, function in table.items():
            for action in _compared(tree, function.__name__):
                yield f"{above.replace('{section}', section)}/{action}"
        return
    name = inspect.unwrap(route.endpoint).__name__
    found = set(_compared(tree, name))
    if any(isinstance(n, ast.Name) and n.id == "DOING" for n in ast.walk(_function(tree, name))):
        found |= set(table)
    assert found, f"{route.path}: what it does is not to be seen"
    yield from (f"{above}/{action}" for action in sorted(found))


def _function(tree: ast.Module, name: str) -> ast.AST:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return next(
        (n for n in tree.body if isinstance(n, kinds) and n.name == name), ast.Module([], [])
    )


def _compared(tree: ast.Module, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """What `action` or `step` is matched with in a function and in those that it calls."""
    found: set[str] = set()
    for node in ast.walk(_function(tree, name)):
        if isinstance(node, ast.Match) and _is_action(node.subject):
            found |= {text for case in node.cases for text in _texts(case.pattern)}
        elif isinstance(node, ast.Compare) and _is_action(node.left):
            found |= {text for other in node.comparators for text in _texts(other)}
        elif isinstance(node, ast.Name) and node.id not in seen | {name}:
            found |= _compared(tree, node.id, seen | {name})
    return found


def _is_action(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("action", "step")


def _texts(node: ast.AST) -> set[str]:
    constants = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return {value for value in constants if isinstance(value, str)}
