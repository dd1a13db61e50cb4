"""Message classes from descriptors, with any protobuf from 3.6 on."""

from __future__ import annotations

from google.protobuf import message_factory


def message_class(pool, name: str) -> type:
    """The class of the message `name` of a DescriptorPool."""
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # before 4.22
