"""People: accounts of Django's, whose role is a group; a superuser is an admin."""

from __future__ import annotations

import math
import threading
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, Permission, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from runtime.accounts.audit import DENIED, note
from runtime.accounts.faults import AccountFault, TooManyTries, WrongPassword
from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.core.lifecycle import storable
from runtime.models import AuditEntry

SEE_PAYLOADS = "perdure.see_payloads"
"""The permission that lets a viewer see what operators see."""

SIGN_IN = "account.sign_in"
LONGEST_NAME = 150  # characters, of an account
WINDOW = timedelta(minutes=5)
TRIES = {"account and address": 5, "address": 20, "account": 50}
"""Failed sign-ins within the window, after which the next is not looked at: by what they have in common."""


async def person(user: AbstractBaseUser | AnonymousUser, origin: str) -> Actor | None:
    """Whom an account lets in; None when it is nobody's, closed, or without a role."""
    if not isinstance(user, User) or not user.is_active:
        return None
    role = await sync_to_async(role_of)(user)
    if role is None:
        return None
    return Actor(user.get_username(), role, origin, role >= Role.OPERATOR or await user.ahas_perm(SEE_PAYLOADS))


def role_of(user: User) -> Role | None:
    """The highest that its groups give it."""
    if user.is_superuser:
        return Role.ADMIN
    groups = set(user.groups.values_list("name", flat=True))
    return max((role for role in Role if group_name(role) in groups), default=None)


def group_name(role: Role) -> str:
    """
    >>> group_name(Role.VIEWER)
    'perdure viewer'
    """
    return f"perdure {role.name.lower()}"


def make_account(by: Actor, name: str, role: Role, password: str, *, sees_payloads: bool = False) -> User:
    """Raises AccountFault: the name is taken, or the password is easily guessed."""
    if User.objects.filter(username=name).exists():
        raise AccountFault(f"There is an account {name} already.")
    user = User(username=name)
    try:
        user.clean_fields(exclude=["password"])
        validate_password(password, user)
    except ValidationError as error:
        raise AccountFault(" ".join(error.messages)) from None
    user.set_password(password)
    with transaction.atomic():
        user.save()
        _give(user, role, sees_payloads=sees_payloads)
        note(Act(by, "account.create", name, {"role": role.name.lower()}), "done")
    return user


def change_account(by: Actor, name: str, *, role: Role | None = None, sees_payloads: bool | None = None,
                   password: str | None = None, is_open: bool | None = None) -> User:  # fmt: skip
    """What is None stays. A closed account lets nobody in, and can be opened again. Raises AccountFault."""
    user = User.objects.filter(username=name).first()
    if user is None:
        raise AccountFault(f"There is no account {name}.")
    said: dict[str, Any] = {}
    with transaction.atomic():
        if role is not None or sees_payloads is not None:
            role = role or role_of(user) or Role.VIEWER
            sees_payloads = user.has_perm(SEE_PAYLOADS) if sees_payloads is None else sees_payloads
            _give(user, role, sees_payloads=sees_payloads)
            said |= {"role": role.name.lower(), "payloads": sees_payloads}
        if password is not None:
            try:
                validate_password(password, user)
            except ValidationError as error:
                raise AccountFault(" ".join(error.messages)) from None
            user.set_password(password)  # which ends the sessions that stand
            said["password"] = "changed"  # noqa: S105 -- that it was, not which
        if is_open is not None:
            user.is_active = is_open
            said["open"] = is_open
        user.save()
        note(Act(by, "account.change", name, said), "done")
    return user


def accounts() -> list[User]:
    return list(User.objects.order_by("username").prefetch_related("groups"))


def _give(user: User, role: Role, *, sees_payloads: bool) -> None:
    user.is_superuser = False
    user.save()
    user.groups.remove(*Group.objects.filter(name__in=map(group_name, Role)))
    user.groups.add(Group.objects.get_or_create(name=group_name(role))[0])
    change = user.user_permissions.add if sees_payloads else user.user_permissions.remove
    change(Permission.objects.get(content_type__app_label="perdure", codename="see_payloads"))


async def sign_in(name: str, password: str, origin: str) -> User:
    """The account that goes by these, which has a role; raises WrongPassword, TooManyTries."""
    return await sync_to_async(_sign_in)(name, password, origin)


_one_at_a_time = threading.Lock()  # or many tries at once would all be looked at before the first has failed


def _sign_in(name: str, password: str, origin: str) -> User:
    known = storable(name[:LONGEST_NAME])
    with _one_at_a_time:
        wait = _wait(known, origin)
        if wait > timedelta(0):
            raise TooManyTries(math.ceil(wait.total_seconds()))
        user = authenticate(username=known, password=password) if known == name else None
        role = role_of(user) if isinstance(user, User) else None
        act = Act(Actor(known, role or Role.VIEWER, origin), SIGN_IN, known)
        note(act, "done" if role else DENIED)
    if not isinstance(user, User) or role is None:
        raise WrongPassword("No account with a role goes by this name and password.")
    return user


def _wait(name: str, origin: str) -> timedelta:
    """How long no sign-in is looked at."""
    now = timezone.now()
    failed = AuditEntry.objects.filter(verb=SIGN_IN, result=DENIED, at__gt=now - WINDOW)
    kinds = {
        "account and address": failed.filter(target=name, origin=origin),
        "address": failed.filter(origin=origin),
        "account": failed.filter(target=name),
    }
    wait = timedelta(0)
    for kind, those in kinds.items():
        # The one whose leaving the window makes room for a further try.
        decisive = those.order_by("-at").values_list("at", flat=True)[TRIES[kind] - 1 : TRIES[kind]]
        wait = max(wait, *(at + WINDOW - now for at in decisive), timedelta(0))
    return wait
