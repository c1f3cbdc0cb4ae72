"""Values of an object: which of them a handler behind HTTP is told with its Start, and which it has to ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

MOST_TOLD = 2 << 20
"""Bytes: what is larger is asked for, so that a message stays far below what services and proxies take."""


def told_at_first(
    values: Mapping[str, bytes], wanted: Collection[str] | None, most: int = MOST_TOLD
) -> tuple[Mapping[str, bytes], bool]:
    """The values that are told, and whether there may be others. `wanted`: only these; None: all, as far as they fit.

    >>> told_at_first({"a": b"1", "b": b"2"}, None)
    ({'a': b'1', 'b': b'2'}, False)
    >>> told_at_first({"a": b"1", "b": b"2"}, ["b"])
    ({'b': b'2'}, True)
    """
    chosen = values if wanted is None else {name: values[name] for name in wanted if name in values}
    told: dict[str, bytes] = {}
    size = 0
    for name, content in chosen.items():
        size += len(name) + len(content)
        if size > most:
            return told, True
        told[name] = content
    return told, wanted is not None
