"""Mail and messages: what is said (`messages`), with which pictures, and an outbox that loses none (`outbox`)."""

from understudy.notify.messages import Message
from understudy.notify.outbox import Delivery, Outbox

__all__ = ["Delivery", "Message", "Outbox"]
