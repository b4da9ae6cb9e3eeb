"""What arguments and results can be packed with."""

from __future__ import annotations

from typing import Literal, get_args

#: To read a pickle can run code, to read JSON cannot.
Serializer = Literal["cloudpickle", "json"]
#: All there are, in the order in which they are named.
SERIALIZERS: tuple[Serializer, ...] = get_args(Serializer)
