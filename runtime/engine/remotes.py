"""The deployments behind URLs, as one engine has them: any engine drives all of them, as soon as it hears of one."""

from __future__ import annotations

import msgspec

from runtime.core.deployments import HttpDeployment
from runtime.engine.memory import Code, Memory
from runtime.engine.remote import RemoteHost
from runtime.outbound import Guard, Peer
from runtime.outbound.identity import Identity


class Remotes:
    def __init__(self, memory: Memory, guard: Guard, identity: Identity | None = None) -> None:
        self._memory = memory
        self._guard = guard
        self._identity = identity
        self._known: dict[str, HttpDeployment] = {}
        self._peers: list[Peer] = []
        """Also those of what is gone: what is under way with them goes on, and connections at rest close."""

    def take(self, deployments: list[HttpDeployment]) -> bool:
        """These are all there are; answers whether that is news."""
        known = {deployment.id: deployment for deployment in deployments}
        if known == self._known:
            return False
        for id in self._known.keys() - known.keys():
            del self._memory.code[id]
        for id, deployment in known.items():
            if self._known.get(id) != deployment:
                self._memory.code[id] = self._code(deployment)
        self._known = known
        return True

    async def close(self) -> None:
        """End all that is under way."""
        for peer in self._peers:
            await peer.close()

    def _code(self, deployment: HttpDeployment) -> Code:
        peer = Peer(
            deployment.url,
            http=deployment.http_version,
            guard=self._guard,
            headers=deployment.headers,
            identity=self._identity,
        )
        self._peers.append(peer)
        host = RemoteHost(peer, version=deployment.protocol_version, is_streaming=deployment.is_streaming)
        return Code(deployment.id, host, msgspec.json.decode(deployment.manifest))
