"""A registry that asks for updates of training plans, and notes what it is sent."""

from __future__ import annotations

import base64
from typing import Any

from pilotwave_protocol import strictjson
from tests.peers.registry import Registry, Reply, problem


class AskingRegistry(Registry):
    """`plans` are what it has by digest, `waiting` those that it asks for, in their round `number`,
    which goes on from `head`; `updates` is what came, and `bodies` all that did. `refuses`: it
    keeps no update."""

    def __init__(self) -> None:
        self.plans: dict[str, bytes] = {}
        self.waiting: list[bytes] = []
        self.bodies: list[bytes] = []
        self.updates: list[bytes] = []
        self.declines: list[bytes] = []
        self.number, self.head = 1, b""
        self.conditions: dict[str, Any] = {}
        self.refuses = False
        super().__init__()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.bodies.append(body)
        if path == "/device/v1/learning":
            rounds = [
                {
                    "content": base64.b64encode(plan).decode(),
                    "round": self.number,
                    "conditions": self.conditions,
                }
                for plan in self.waiting
            ]
            return Reply(200, strictjson.dumps({"rounds": rounds}))
        if path.endswith(f"/rounds/{self.number}/head"):
            return Reply(200, self.head)
        if path.startswith("/device/v1/plans/"):
            content = self.plans.get(path.rpartition("/")[2])
            return problem(404, "plan_unknown") if content is None else Reply(200, content)
        if path == "/device/v1/declines":
            self.declines.append(body)
            return Reply(204)
        if path == "/device/v1/updates":
            self.updates.append(body)
            return problem(503, "round_full") if self.refuses else Reply(204)
        return super().answer(method, path, headers, body)
