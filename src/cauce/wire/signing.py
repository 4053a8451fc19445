"""How a signature of one wire travels through a client of another and comes back recognised.

A client hands back what it was given without looking. A signature of its own wire is shown bare; one of another wire is
wrapped, with the name of its wire inside, and unwrapped when it comes back. A wrapped one is base64 from end to end: some
clients decode signatures, and may write them in base64's other alphabet.
"""

import base64
import binascii

import msgspec

from cauce.domain.signature import Signature

_MARK = b"cauce."
_PREFIX = base64.b64encode(_MARK).decode()

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(tuple[str, str, str | None])


def seal(signature: Signature, own: str) -> str:
    """`signature` as a client of the wire `own` is shown it."""
    if signature.wire == own:
        return signature.data
    token = _encode((signature.wire, signature.data, signature.id))
    return base64.b64encode(_MARK + token).decode()


def unseal(text: str, own: str) -> Signature:
    """The signature in `text`, which a client of the wire `own` sent."""
    if text.startswith(_PREFIX):
        try:
            whole = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
            return Signature(*_decoder.decode(whole.removeprefix(_MARK)))
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            pass
    return Signature(own, text)
