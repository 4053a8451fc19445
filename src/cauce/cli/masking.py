"""What of a secret may be shown: that it is there."""

from urllib.parse import urlsplit, urlunsplit

STARS = "***"


def masked(secret: str) -> str:
    """Stars for a secret, nothing for none."""
    return STARS if secret else ""


def masked_address(url: str) -> str:
    """`url` without what may be secret in it: the user information and the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    userinfo, at, host = parts.netloc.rpartition("@")
    netloc = f"{STARS}@{host}" if at and userinfo else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path, STARS if parts.query else "", ""))
