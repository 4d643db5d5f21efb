"""Tells the callers of calls that died in a queue."""

from __future__ import annotations

import logging
from typing import Any

from fan.message import Response
from fan.transports.amqp_consumer import Delivery
from fan.transports.amqp_replies import Replies
from fan.transports.amqp_wire import reply_properties


def reap(delivery: Delivery, replies: Replies) -> None:
    """Answer the caller of one dead call, and let go of it; in the link's thread."""
    properties = delivery.properties
    if properties.reply_to and properties.type == "call":
        response = verdict(properties)
        correlation = properties.correlation_id or properties.message_id or ""
        replies.send(properties.reply_to, *reply_properties(response, correlation))
    else:
        logging.getLogger("fan").warning("a message that is no call died in a queue of calls")
    delivery.ack()


def verdict(properties: Any) -> Response:
    """What a dead call's caller is told."""
    id = properties.message_id or ""
    if cause_of_death(properties.headers) == "expired":
        return Response(
            id=id, code="deadline_exceeded", reason="expired_in_queue", executed="no",
            message="nobody took the call from its queue in time",
        )  # fmt: skip
    return Response(
        id=id, code="unavailable", reason="connection_lost", executed="maybe",
        message="the call was dropped from its queue",
    )  # fmt: skip


def cause_of_death(headers: Any) -> str:
    """`expired`, `rejected`, `maxlen` or `delivery_limit`, as RabbitMQ writes it into a message;
    empty where it did not."""
    deaths = (headers or {}).get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return ""
    reason = deaths[0].get("reason", "")
    return reason if isinstance(reason, str) else ""
