"""What was said earlier in the same request."""

import pytest

from cauce.domain.message import Message, TextPart
from cauce.providers.offline.answer import Library
from tests.unit.providers.offline.conftest import Ask


def test_name_that_was_said_is_found(ask: Ask) -> None:
    assert ask("My name is Ada and I live in Lugo.", "Noted.", "What did I say my name was?") == (
        "You said: “My name is Ada and I live in Lugo.” [1]\n\nSources:\n- [1] This conversation, message 1"
    )


def test_name_that_was_said_in_spanish_is_found(ask: Ask) -> None:
    assert ask("Me llamo Ada y vivo en Lugo.", "Vale.", "¿cómo dije que me llamaba?") == (
        "Dijiste: «Me llamo Ada y vivo en Lugo.» [1]\n\nFuentes:\n- [1] Esta conversación, mensaje 1"
    )


@pytest.mark.parametrize(
    ("said", "question", "quoted"),
    [
        ("Hi! I'm Ada.", "What's my name?", "“I'm Ada.”"),
        ("Hola, soy Ada. Tengo 42 años.", "¿Cómo me llamo?", "«Hola, soy Ada.»"),
        ("Hola, soy Ada. Tengo 42 años.", "¿Cuántos años tengo?", "«Tengo 42 años.»"),
        ("My favourite colour is green.", "What is my favourite colour?", "“My favourite colour is green.”"),
        ("Mi perro se llama Toby.", "¿Cómo se llama mi perro?", "«Mi perro se llama Toby.»"),
        ("The project deadline is 5 May.", "When is the project deadline?", "“The project deadline is 5 May.”"),
    ],
)
def test_statement_that_answers_is_quoted(ask: Ask, said: str, question: str, quoted: str) -> None:
    assert quoted in ask(said, "Noted.", question)


def test_newest_statement_wins(ask: Ask) -> None:
    assert "call me Eva" in ask(
        "My name is Ada.", "Hello Ada.", "I changed my mind: call me Eva.", "Ok.", "What is my name?"
    )


def test_what_was_never_said_is_not_made_up(ask: Ask) -> None:
    assert ask("Hello", "Hello!", "What did I say my name was?").startswith("I found no answer")


def test_earlier_question_is_no_answer(ask: Ask) -> None:
    assert ask("What is my name?", "I do not know.", "What is my name?").startswith("I found no answer")


def test_last_message_is_quoted_when_it_is_asked_for(ask: Ask) -> None:
    assert ask("How do I change the port?", "With `port`.", "What did I just ask?").startswith(
        "You said: “How do I change the port?”"
    )


def test_what_the_assistant_said_is_found(ask: Ask) -> None:
    assert ask(
        "How do I change the port?", "Change the port with `port`.", "What did you say about the port?"
    ).startswith("The answer was: “Change the port with `port`.”")


def test_guide_wins_over_the_conversation_where_it_is_asked_how_to_do_something(ask: Ask) -> None:
    assert "Providers — Add an OpenAI API key" in ask("I want to add my API key.", "Sure.", "How do I add my API key?")


def test_text_that_came_with_the_question_is_searched(ask: Ask) -> None:
    material = "The Guadalquivir flows through Sevilla. It is a long river in the south of Spain. " * 6
    answer = ask(f"Which river flows through Sevilla?\n\n{material}")
    assert answer.startswith("You said: “The Guadalquivir flows through Sevilla.”")


def test_system_message_is_never_quoted(library: Library) -> None:
    messages = (
        Message("system", (TextPart("The name of the user is Ada."),)),
        Message("user", (TextPart("What is my name?"),)),
    )
    assert "Ada" not in "".join(library.answer(messages))


def test_messages_are_counted_as_the_request_counts_them(library: Library) -> None:
    messages = (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("My name is Ada."),)),
        Message("user", (TextPart("What is my name?"),)),
    )
    assert "".join(library.answer(messages)).endswith("[1] This conversation, message 2")
