"""The guard: which addresses may be connected to. It is asked before every connection, not only at registration.

Whoever may register a URL could else make this machine ask its neighbours: the metadata service of a cloud, the port of
a database, an admin page behind the firewall. So a name is resolved here, what it resolves to is judged, and the
connection goes to the very address that was judged.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

from runtime.conf import SettingError, Settings
from runtime.outbound.address import PORTS, Address
from runtime.outbound.faults import AddressRefused, Unreachable
from runtime.threads import in_own_thread

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What clouds tell their machines at these is a secret; they are no link-local addresses, as the usual one is.
METADATA = frozenset(map(ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))
PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""Prefixes behind which stands an IPv4 address."""
WORDS = ("public", "private", "loopback")


class Guard(Struct, frozen=True):
    """Where deployments may be.

    >>> guard = Guard.read(["public", "10.1.0.0/16"], ["https"])
    >>> guard.allows(ip_address("10.1.2.3")), guard.allows(ip_address("10.2.2.3"))
    (True, False)
    """

    kinds: frozenset[str]
    """Of WORDS."""
    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    """Hosts that may have an address of any of these kinds; `*.` before one stands for everything below it."""
    schemes: frozenset[str] = frozenset(PORTS)

    @classmethod
    def read(cls, listed: Sequence[str], schemes: Sequence[str] = tuple(PORTS)) -> Guard:
        """Raises ValueError for what is neither one of WORDS nor a network nor a host's name."""
        networks, names = [], []
        for item in listed:
            if item in WORDS:
                continue
            try:
                networks.append(ip_network(item))
            except ValueError:
                plain = item.removeprefix("*.")
                if not plain.replace("-", "a").replace(".", "a").replace("_", "a").isalnum() or item[-1].isdigit():
                    raise ValueError(item) from None
                names.append(item.lower())
        return cls(frozenset(listed) & frozenset(WORDS), tuple(networks), tuple(names), frozenset(schemes))

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """As the settings say; raises SettingError."""
        try:
            return cls.read(settings.deployment_addresses, settings.deployment_schemes)
        except ValueError as error:
            said = ",".join(settings.deployment_addresses)
            raise SettingError(
                "PERDURE_DEPLOYMENT_ADDRESSES",
                said,
                f"public, private, loopback, networks (10.1.0.0/16) and names (*.svc.internal), with commas: {error}",
            ) from None

    def allows(self, address: IP, host: str = "") -> bool:
        """Whether a host that resolved to this address may be connected to."""
        address = unwrapped(address)
        if any(address in network for network in self.networks):
            return True
        kind = kind_of(address)
        return kind in self.kinds or (kind in WORDS and self._names(host))

    def _names(self, host: str) -> bool:
        return any(host == name or (name[0] == "*" and host.endswith(name[1:])) for name in self.names)

    async def resolve(self, address: Address) -> list[str]:
        """The addresses that may be connected to, the best first; raises AddressRefused, Unreachable."""
        if address.scheme not in self.schemes:
            raise AddressRefused(
                f"Deployments may be behind {' and '.join(sorted(self.schemes))} only, not {address.scheme}.",
                hint="PERDURE_DEPLOYMENT_SCHEMES lists what is allowed.",
            )
        try:
            found = await in_own_thread(lambda: socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"The host {address.host!r} has no address: {error}.") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [one for one in addresses if "%" not in one and self.allows(ip_address(one), address.host)]
        if not allowed:
            kinds = sorted({kind_of(unwrapped(ip_address(one.partition("%")[0]))) for one in addresses})
            raise AddressRefused(
                f"The host {address.host!r} has a {' and a '.join(kinds)} address, which is not allowed."
            )
        return allowed


def unwrapped(address: IP) -> IP:
    """The IPv4 address that an IPv6 one only wraps, where it does.

    >>> unwrapped(ip_address("::ffff:169.254.169.254")), unwrapped(ip_address("64:ff9b::a00:1"))
    (IPv4Address('169.254.169.254'), IPv4Address('10.0.0.1'))
    """
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if any(address in prefix for prefix in TRANSLATED) and int(address) & 0xFFFFFFFF > 1:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def kind_of(address: IP) -> str:
    """One of WORDS, or what is refused unless its network is listed.

    >>> [kind_of(ip_address(one)) for one in ("8.8.8.8", "127.0.0.2", "192.168.1.1", "169.254.169.254", "0.0.0.0")]
    ['public', 'loopback', 'private', 'link-local', 'unspecified']
    """
    if address in METADATA:
        return "metadata"
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if any(address in network for network in PRIVATE):
        return "private"
    return "public" if address.is_global else "reserved"
