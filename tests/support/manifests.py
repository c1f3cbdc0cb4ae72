"""Services for tests: their manifests, as endpoints would send them."""

from __future__ import annotations

from typing import Any

from runtime.core.registry import Registry, read_service

TEXT: dict[str, Any] = {"required": True, "contentType": "application/json", "jsonSchema": {"type": "string"}}
ORDER: dict[str, Any] = {
    "required": True,
    "contentType": "application/json",
    "jsonSchema": {
        "$ref": "#/$defs/Order",
        "$defs": {
            "Order": {
                "type": "object",
                "required": ["items"],
                "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
            },
            "Item": {"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}},
        },
    },
}
JSON_RESULT: dict[str, Any] = {"contentType": "application/json"}

GREETER = {
    "name": "Greeter",
    "ty": "SERVICE",
    "documentation": "Greets.",
    "handlers": [
        {"name": "greet", "input": TEXT, "output": JSON_RESULT, "documentation": "Says hello."},
        {"name": "anything"},  # says nothing of input and output
        {"name": "nothing", "input": {}, "output": {}},
        {"name": "optional", "input": {**TEXT, "required": False}},
        {"name": "unchecked", "input": TEXT, "metadata": {"dev.perdure.validate": "false"}},
        {"name": "picture", "input": {"contentType": "image/*"}, "output": {"contentType": "image/png"}},
        {"name": "typed", "output": {"contentType": "text/plain", "setContentTypeIfEmpty": True}},
        {"name": "secret", "ingressPrivate": True},
    ],
}
MAILBOX = {
    "name": "Mailbox",
    "ty": "VIRTUAL_OBJECT",
    "handlers": [
        {"name": "put", "ty": "EXCLUSIVE", "input": TEXT, "output": JSON_RESULT},
        {"name": "letters", "ty": "SHARED", "input": {}, "output": JSON_RESULT},
    ],
}
SHOP = {"name": "my.Shop", "ty": "SERVICE", "handlers": [{"name": "buy", "input": ORDER, "output": JSON_RESULT}]}
SENDER = {"name": "Sender", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "send"}, {"name": "put"}]}
SIGNUP = {
    "name": "Signup",
    "ty": "WORKFLOW",
    "handlers": [
        {"name": "run", "ty": "WORKFLOW", "input": TEXT, "output": JSON_RESULT},
        {"name": "confirm", "ty": "SHARED", "input": TEXT, "output": {}},
    ],
}


def registry(*manifests: dict[str, Any]) -> Registry:
    manifests = manifests or (GREETER, MAILBOX, SHOP, SENDER, SIGNUP)
    return Registry(read_service(manifest, "dp_1", 1) for manifest in manifests)
