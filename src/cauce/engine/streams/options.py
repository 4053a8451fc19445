"""What is decided of a stream at its creation, for the whole of its life and for whoever takes it over."""

from typing import Literal

import msgspec

from cauce.domain.request import Scope
from cauce.domain.stream import Head
from cauce.ports.provider import Call

Disconnect = Literal["continue", "grace", "cancel"]
"""What becomes of a stream that nobody reads any more: it goes on; it is cancelled when nobody came back in time; at once."""

_NOTHING = msgspec.Raw(b"null")


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """`wire` is the one it was asked for on. `grace` and `retention` are in seconds (`retention` None: the log's own).

    `replaces`: its readers can take back text that was shown, so it may begin anew before their eyes. `buffer`: nobody is shown
    anything before its end, so it may too. `scope` and `request_id` are those of who asked, for a process that goes on with it.
    `asked` is what the wire has to know again of the request to render the answer, as that wire writes it (JSON).
    """

    wire: str = "native"
    on_disconnect: Disconnect = "continue"
    grace: float = 30.0
    retention: float | None = None
    replaces: bool = False
    buffer: bool = False
    scope: Scope | None = None
    request_id: str = ""
    asked: msgspec.Raw = _NOTHING
    private: bool = False
    """It stays on this machine, whatever its route says when another process goes on with it."""


NATIVE = StreamOptions()
"""Those of `/chat/stream`."""

_decode = msgspec.json.Decoder(StreamOptions).decode


def shown_as(call: Call, options: StreamOptions) -> Call:
    """`call`, whose answer is shown as `options` say."""
    hidden = options.buffer
    return msgspec.structs.replace(call, replaces=options.replaces or hidden, withheld=hidden, abandons=True)


def options_of(head: Head) -> StreamOptions:
    """What was decided of the stream at its creation."""
    return _decode(head.policy) if head.policy else NATIVE
