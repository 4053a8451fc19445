"""How a client's script is spoken to: a line of JSON in is a case to run, a line of JSON out is what it saw.

By hand, for one case: `BASE_URL=http://127.0.0.1:8000 python openai_chat.py plain`.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Case = Callable[[SimpleNamespace], Any]
_cases: dict[str, Case] = {}


def case(work: Case) -> Case:
    """A function of what is asked, that returns what the client saw."""
    _cases[work.__name__] = work
    return work


def serve() -> None:
    """Run the cases that are asked for, until the input ends."""
    if len(sys.argv) > 1:
        given = {"base_url": os.environ["BASE_URL"], "api_key": os.environ.get("API_KEY", "any")}
        asked = SimpleNamespace(case=sys.argv[1], model=os.environ.get("MODEL", "auto"), **given)
        sys.stdout.write(json.dumps(_cases[asked.case](asked), indent=2, ensure_ascii=False) + "\n")
        return
    # What a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = SimpleNamespace(**json.loads(line))
        try:
            told = {"result": _run(asked)}
        except Exception:
            told = {"failed": traceback.format_exc()}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _run(asked: SimpleNamespace) -> Any:
    work = _cases[asked.case]
    return refused(lambda: work(asked)) if asked.refused else work(asked)


def refused(work: Callable[[], Any]) -> dict[str, Any]:
    """What kind of error a client raised, and what it knows of it."""
    try:
        return {"error": None, "result": str(work())}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error), **_known(error)}


def _known(error: BaseException) -> dict[str, Any]:
    """The status and the header of an error, or of the first of its causes that has them."""
    while True:
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        if isinstance(status, int) or error.__cause__ is None:
            known = {"status": status if isinstance(status, int) else None}
            return {**known, "retry_after": headers.get("retry-after")} if headers else known
        error = error.__cause__
