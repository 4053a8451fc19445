"""How a signature of one wire travels through a client of another and comes back recognised.

A client hands back what it was given without looking. A signature of its own wire is shown bare; one of another wire is
wrapped, with the name of its wire inside, and unwrapped when it comes back.
"""

import base64
import binascii

import msgspec

from cauce.domain.signature import Signature

_PREFIX = "cauce."

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(tuple[str, str, str | None])


def seal(signature: Signature, own: str) -> str:
    """`signature` as a client of the wire `own` is shown it."""
    if signature.wire == own:
        return signature.data
    token = _encode((signature.wire, signature.data, signature.id))
    return _PREFIX + base64.urlsafe_b64encode(token).decode()


def unseal(text: str, own: str) -> Signature:
    """The signature in `text`, which a client of the wire `own` sent."""
    if text.startswith(_PREFIX):
        try:
            return Signature(*_decoder.decode(base64.urlsafe_b64decode(text.removeprefix(_PREFIX))))
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            pass
    return Signature(own, text)
