"""In which language a model is asked to go on."""

import pytest

from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.engine.recovery.prompt import asked_to_continue

CITIES = "Sevilla, Córdoba, Granada, Jaén,"
SPANISH = ("Responde siempre en español.", "Dime las ciudades de Andalucía, por favor.")
ENGLISH = ("Always answer in English.", "Name the cities of Andalusia, please.")


def asked(answer: str, system: str, *users: str) -> str:
    """What a model is told that is to go on with `answer`."""
    messages = [Message("user", (TextPart(user),)) for user in users]
    request = Request("m", (Message("system", (TextPart(system),)), *messages))
    return asked_to_continue(request, answer).messages[-1].text


@pytest.mark.parametrize(
    ("answer", "system", "user", "language"),
    [
        (CITIES, *SPANISH, "es"),
        (CITIES, *ENGLISH, "en"),
        (CITIES, SPANISH[0], "¿Ciudades andaluzas?", "es"),
        (CITIES, ENGLISH[0], "Andalusian cities?", "en"),
        (CITIES, ENGLISH[0], SPANISH[1], "es"),
        (CITIES, SPANISH[0], ENGLISH[1], "en"),
        ("Son estas: Sevilla, la capital, y Córdoba,", *ENGLISH, "es"),
        ("They are these: Seville, the capital, and", *SPANISH, "en"),
        ("Un, dos, tres: de la A a la", *ENGLISH, "es"),
        ("No, no, no", *ENGLISH, "en"),
        (CITIES, "", "Sevilla", "en"),
    ],
)
def test_language_is_that_of_the_answer_else_of_the_user_else_of_the_system_prompt(
    answer: str, system: str, user: str, language: str
) -> None:
    assert asked(answer, system, user).startswith("Un fallo de red" if language == "es" else "Your last answer")


def test_what_the_user_said_last_tells_the_language() -> None:
    assert asked(CITIES, "", ENGLISH[1], SPANISH[1]).startswith("Un fallo de red")
