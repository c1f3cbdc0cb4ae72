"""A Django model and a message in one transaction: an order is kept and announced, or neither.

The model is part of your Django project; the endpoint is registered like any other.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models, transaction

from perdure import Endpoint, ObjectContext, VirtualObject, handler
from perdure.django import invocation_id, send


class Customer(VirtualObject):
    @handler
    async def ordered(self, ctx: ObjectContext, item: str) -> None:
        ctx.set("items", [*(await ctx.get("items", list[str]) or []), item])


class Order(models.Model):
    objects: ClassVar[models.Manager[Order]] = models.Manager()
    who = models.TextField()
    item = models.TextField()

    class Meta:
        app_label = "orders"


def order(who: str, item: str, in_stock: int) -> str:
    with transaction.atomic():
        Order.objects.create(who=who, item=item)
        sent = send(Customer, who).ordered(item)  # exists if and only if the order does
        if not in_stock:
            raise LookupError(f"no {item} left")  # neither does
    return invocation_id(sent)


app = Endpoint(Customer)
