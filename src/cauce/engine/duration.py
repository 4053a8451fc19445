"""How long something takes, in the words of a message."""


def in_words(seconds: float) -> str:
    """`seconds` as people say it: to three digits, from two minutes on in minutes, then in hours, then in days."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
