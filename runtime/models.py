"""The engine's tables as Django models, for people's reads: what changes an invocation goes through runtime.store.

Unmanaged, for the tables are made by the SQL of the migrations, and partial: arrays and what only engines read are
left out. Saving one of these would go past every lock and fence.
"""

from __future__ import annotations

from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from perdure.protocol.ids import format_id
from perdure.protocol.target import Target


class Recorded(models.Model):
    """What is known of an invocation both while it lives and afterwards."""

    id: UUID
    created_at = models.DateTimeField()
    service = models.TextField()
    handler = models.TextField()
    key = models.TextField(null=True)
    mode = models.TextField()
    deployment = models.TextField(null=True)
    caller = models.UUIDField(null=True)
    idempotency_key = models.TextField(null=True)
    input = models.BinaryField()  # entry 0 of the journal, framed
    failed_attempts = models.IntegerField(default=0)
    failure = models.JSONField(null=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.public_id} {self.target}"

    @property
    def public_id(self) -> str:
        """The id as people and programs write it."""
        return format_id(self.id.bytes)

    @property
    def target(self) -> str:
        return str(Target(self.service, self.handler, self.key))


class Invocation(Recorded):
    """One that has not ended."""

    id = models.UUIDField(primary_key=True)
    modified_at = models.DateTimeField()
    status = models.TextField()
    owner = models.UUIDField(null=True)
    queue = models.TextField()
    due_at = models.DateTimeField(null=True)
    waits = ArrayField(models.IntegerField(), null=True)  # suspended: the completion ids that may let it go on
    begun_at = models.DateTimeField(null=True)  # an exclusive one: when it was first seen to have its key
    retries = models.IntegerField(default=0)
    crashes = models.IntegerField(default=0)

    class Meta:
        managed = False
        db_table = "invocation"


class Done(Recorded):
    """One that has ended."""

    pk = models.CompositePrimaryKey("id", "expires_on")
    id = models.UUIDField()
    expires_on = models.DateField()
    completed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    outcome = models.TextField()
    entries = models.IntegerField()
    frames = models.BinaryField()  # the journal's last flush
    result = models.BinaryField()  # the Output, framed

    class Meta:
        managed = False
        db_table = "done"


class Journal(models.Model):
    """The entries that one flush added to one invocation."""

    pk = models.CompositePrimaryKey("invocation", "first", "day")
    invocation = models.UUIDField()
    first = models.IntegerField()
    count = models.IntegerField()
    frames = models.BinaryField()
    day = models.DateField()

    class Meta:
        managed = False
        db_table = "journal"


class Timer(models.Model):
    """What is due some time: a delayed send, the next attempt of one that backs off, or the end of a sleep."""

    START = -1  # the slot of a delayed send
    RETRY = -2  # that of the next attempt of one that backs off

    pk = models.CompositePrimaryKey("due", "invocation_id", "slot")
    due = models.DateTimeField()
    invocation = models.ForeignKey(
        Invocation, on_delete=models.DO_NOTHING, db_column="invocation", db_constraint=False, related_name="timers"
    )
    slot = models.IntegerField()
    position = models.BigIntegerField(null=True)  # of a send, among those that are due at the same moment
    service = models.TextField(null=True)  # of a send, as are these
    handler = models.TextField(null=True)
    key = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = "timer"


class ObjectKey(models.Model):
    """A key of an object that has an inbox, or that an engine leases."""

    pk = models.CompositePrimaryKey("service", "key")
    service = models.TextField()
    key = models.TextField()
    owner = models.UUIDField(null=True)
    queue = models.TextField()
    leased_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "object_key"


class Inbox(models.Model):
    """A place in the inbox of a key; the first one has the key."""

    pk = models.CompositePrimaryKey("service", "key", "position")
    service = models.TextField()
    key = models.TextField()
    position = models.BigIntegerField()
    invocation = models.UUIDField()

    class Meta:
        managed = False
        db_table = "inbox"


class State(models.Model):
    """One value of an object."""

    pk = models.CompositePrimaryKey("service", "key", "name")
    service = models.TextField()
    key = models.TextField()
    name = models.TextField()
    value = models.BinaryField()

    class Meta:
        managed = False
        db_table = "state"


class StateChange(models.Model):
    """What was done to a value of an object: by a person, or by a handler of a service that keeps that."""

    pk = models.CompositePrimaryKey("service", "key", "position", "expires_on")
    service = models.TextField()
    key = models.TextField()
    position = models.BigIntegerField()
    name = models.TextField()
    at = models.DateTimeField()
    invocation = models.UUIDField()
    handler = models.TextField()
    actor = models.TextField(null=True)
    before = models.BinaryField(null=True)
    after = models.BinaryField(null=True)
    expires_on = models.DateField()

    class Meta:
        managed = False
        db_table = "state_history"


class Outbox(models.Model):
    """A message that an application has sent in a transaction of its own; it becomes an invocation in a moment."""

    position = models.BigIntegerField(primary_key=True)
    id = models.UUIDField()
    service = models.TextField()
    handler = models.TextField()
    key = models.TextField(null=True)
    sent_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "outbox"


class Deployment(models.Model):
    """Code that was registered, and what it said it can do."""

    id = models.TextField(primary_key=True)
    kind = models.TextField()
    location = models.TextField()
    manifest = models.JSONField()
    created_at = models.DateTimeField()
    # Of one behind a URL. The column `headers` is no field, for it is shown to nobody.
    http_version = models.TextField(null=True)
    protocol_version = models.IntegerField(null=True)
    protocol_mode = models.TextField(null=True)
    sdk = models.TextField(null=True)
    metadata = models.JSONField(default=dict)

    class Meta:
        managed = False
        db_table = "deployment"


class Service(models.Model):
    """A service, and the deployment that takes its new invocations."""

    name = models.TextField(primary_key=True)
    type = models.TextField()
    deployment = models.ForeignKey(Deployment, on_delete=models.DO_NOTHING, db_column="deployment")
    revision = models.IntegerField()
    modified_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "service"


class ServiceOptions(models.Model):
    """What operators have set on a service; it goes before what its code says."""

    service = models.TextField(primary_key=True)
    options = models.JSONField()

    class Meta:
        managed = False
        db_table = "service_options"


class IngressKey(models.Model):
    """A key with which callers may call a service."""

    id = models.TextField(primary_key=True)
    service = models.TextField()
    note = models.TextField()
    created_at = models.DateTimeField()
    created_by = models.TextField()

    class Meta:
        managed = False
        db_table = "ingress_key"


class Engine(models.Model):
    """An engine: one start of one worker's child."""

    id = models.UUIDField(primary_key=True)
    host = models.TextField()
    pid = models.IntegerField()
    address = models.TextField()
    queues = ArrayField(models.TextField())
    deployments = ArrayField(models.TextField())  # the code it has loaded
    alive = models.BooleanField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    drained_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "engine"


class Heartbeat(models.Model):
    """The pulse of an engine, and how busy it is."""

    engine = models.UUIDField(primary_key=True)
    beat = models.BigIntegerField()
    attached = models.BooleanField()
    room = models.IntegerField()
    in_flight = models.IntegerField()
    leases = models.IntegerField()
    claimed_per_s = models.FloatField()
    finished_per_s = models.FloatField()
    lag_ms = models.FloatField()
    beat_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "heartbeat"


class Claimed(models.Model):
    """Which engine drives what; of an exclusive one its key's row says it."""

    pk = models.CompositePrimaryKey("engine", "invocation")
    engine = models.UUIDField()
    invocation = models.UUIDField()

    class Meta:
        managed = False
        db_table = "claimed"


class Ready(models.Model):
    """What no engine was given at its birth, and waits for one: an invocation, or a key."""

    pk = models.CompositePrimaryKey("queue", "position")
    queue = models.TextField()
    position = models.BigIntegerField()
    service = models.TextField()
    since = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "ready"


class DrainedQueue(models.Model):
    """A queue from which nothing new is taken until somebody resumes it."""

    queue = models.TextField(primary_key=True)
    drained_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "drained_queue"


class OldestReady(models.Model):
    """A queue in which something waits for an engine, and since when: a view, quick whatever stands behind it."""

    queue = models.TextField(primary_key=True)
    since = models.DateTimeField()
    service = models.TextField()

    class Meta:
        managed = False
        db_table = "oldest_ready"


class Tally(models.Model):
    """What a process has counted since it began."""

    process = models.UUIDField(primary_key=True)
    told_at = models.DateTimeField()
    counts = models.JSONField()

    class Meta:
        managed = False
        db_table = "tally"


class Token(models.Model):
    """Whom a program comes in as; its secret is known to nobody but the program."""

    id = models.BigAutoField(primary_key=True)
    name = models.TextField()
    digest = models.BinaryField()
    role = models.SmallIntegerField()
    services = ArrayField(models.TextField(), null=True)
    sees_payloads = models.BooleanField()
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.TextField()
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "token"
        default_permissions = ()
        permissions = (("see_payloads", "Sees inputs, results, state and journals, as a viewer too"),)


class AuditEntry(models.Model):
    """What somebody did, or was denied."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    actor = models.TextField()
    role = models.TextField()
    origin = models.TextField()
    verb = models.TextField()
    target = models.TextField()
    details = models.JSONField()
    result = models.TextField()

    class Meta:
        managed = False
        db_table = "audit"


class Bulk(models.Model):
    """A verb on all that a filter meant."""

    id = models.UUIDField(primary_key=True)
    verb = models.TextField()
    deployment = models.TextField()
    filter = models.JSONField()
    actor = models.TextField()
    origin = models.TextField()
    services = ArrayField(models.TextField(), null=True)
    stopped_by = models.TextField(null=True)
    total = models.IntegerField()
    came = models.JSONField()
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "bulk"
