"""What was used, what it cost, what people thought of it."""

from typing import Any

from cauce.server.openapi.operation import described, json_of, query
from cauce.server.routes.usage import FILTERS, GROUPS, MOST_GROUPS
from cauce.wire.native.request import MessageRequestBody
from cauce.wire.native.usage import EstimateBody, FeedbackBody, ForecastBody, Noted, ReportBody

BODIES = (ReportBody, ForecastBody, EstimateBody, FeedbackBody, Noted)


def usage() -> dict[str, Any]:
    text = {"type": "string"}
    filters = [query(name, text, "This one only.") for name in FILTERS]
    time = {
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}, {"type": "number"}]
    }
    parameters = [
        query(
            "group_by",
            text,
            f"Some of {', '.join(GROUPS)}, with commas between them. Users go with key and day only, unless conversations are told "
            "apart too. Those are known as long as single attempts are kept: `from` of the answer says since when.",
        ),
        query("from", time, "A date, a time or UNIX seconds; the first of this month without."),
        query("to", time, "The same; a date includes its day. Now without."),
        query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_GROUPS}, "Most groups."),
        *filters,
    ]
    what = "Sums, percentiles, error rates and feedback of the caller's tenant. Times are kept to whole hours."
    month = "The end of this month by what each day came to, and the band that holds it with a probability of 80 %."
    estimate = described(
        "What a request would cost",
        "Takes the body of `/llm/message` or `/v1/chat/completions`. Nothing is sent.",
        body=MessageRequestBody,
        answers={200: json_of(EstimateBody)},
    )
    feedback = described(
        "Tell what you think of an answer",
        "The last one of a key counts.",
        body=FeedbackBody,
        answers={200: json_of(Noted)},
    )
    feedback["requestBody"]["content"]["application/json"]["example"] = {"stream_id": "str_example", "thumb": "up"}
    forecast = described("What the month will come to", month, answers={200: json_of(ForecastBody)})
    return {
        "/usage": {
            "get": {**described("What was used", what, answers={200: json_of(ReportBody)}), "parameters": parameters}
        },
        "/usage/forecast": {"get": {**forecast, "parameters": filters}},
        "/usage/estimate": {"post": estimate},
        "/feedback": {"post": feedback},
    }
