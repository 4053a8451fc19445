"""Questions about Cauce, in both languages, and questions that are not for it."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.providers.offline.answer import Library
from tests.unit.providers.offline.conftest import Ask, conversation

ENGLISH = [
    ("How do I add an API key?", "Set the variable `OPENAI_API_KEY`", "Providers — Add an OpenAI API key"),
    ("How do I configure a provider?", "[providers.mistral]", "Providers — Configure a provider"),
    ("How do I change the port?", "cauce serve --port 9000", "Configuration — Change the port or the address"),
    ("What is a fallback cascade?", "A cascade is an ordered list of candidates", "Models — What a cascade is"),
    ("How do I resume a stream?", "-H 'Last-Event-ID: 2'", "Streaming — Resume a stream"),
    ("How do I cancel a stream?", "curl -X DELETE", "Streaming — Cancel a stream"),
    ("What does cauce check do?", "Exit code 1: a provider fails.", "Command line — cauce check"),
    ("Which local servers are found?", "- Ollama on port 11434", "Local servers — Which local servers are found"),
    ("Can I use Gemini?", "GEMINI_API_KEY", "Providers — Use Gemini"),
    ("How do I connect DeepSeek?", "https://api.deepseek.com/v1", "Providers — OpenAI-compatible services"),
    ("What is auto?", "`auto` is a built-in cascade", "Models — What auto is"),
    ("What does error 429 mean?", "Status 429 means", "Troubleshooting — Status 429: rate limit or quota"),
    ("What is the default timeout?", "first_delta = 60", "Configuration — Timeouts"),
    ("How can I listen on 0.0.0.0?", "cauce serve --host 0.0.0.0", "Security — Let other machines reach the server"),
    ("Where are streams stored?", "written to the file `streams.db`", "Streaming — How long streams are kept"),
    ("How do I set the default model?", "DEFAULT_LLM_MODEL", "Models — The default model"),
    ("What is hold_headers?", "`hold_headers` is how many seconds", "Configuration — Streams"),
    ("what error codes are there?", "| `payload_too_large` | 413 |", "HTTP API — Error codes"),
    ("how much does it cost?", "`cost_source` is `unpriced`", "HTTP API — Cost"),
    ("What happens if the client disconnects?", "the answer goes on", "Streaming — When the client disconnects"),
    ("What is Cauce?", "Cauce is a server that stands between", "Introduction — What Cauce is"),
]

SPANISH = [
    ("¿Cómo configuro un proveedor?", "añade una tabla `[providers.NOMBRE]`", "Proveedores — Configurar un proveedor"),
    ("¿Cómo añado una clave de API?", "OPENAI_API_KEY", "Proveedores — Añadir una clave de API de OpenAI"),
    ("¿Cómo cambio el puerto?", "cauce serve --port 9000", "Configuración — Cambiar el puerto o la dirección"),
    ("¿Qué es una cascada?", "Una cascada es una lista ordenada", "Modelos — Qué es una cascada"),
    ("¿Cómo reanudo un stream?", "-H 'Last-Event-ID: 2'", "Streaming — Reanudar un stream"),
    ("¿Cómo cancelo un stream?", "curl -X DELETE", "Streaming — Cancelar un stream"),
    ("¿Qué hace cauce check?", "Código de salida 1: un proveedor falla.", "Línea de comandos — cauce check"),
    ("¿Qué servidores locales se encuentran?", "- Ollama en el puerto 11434", "Qué servidores locales se encuentran"),
    ("¿Qué significa el error 429?", "El estado 429 significa", "Estado 429: límite de peticiones o cuota"),
    ("¿Cuáles son los tiempos límite por defecto?", "first_delta = 60", "Configuración — Tiempos límite"),
    ("¿Dónde se guardan los streams?", "en el archivo `streams.db`", "Streaming — Cuánto se guardan los streams"),
    ("¿Cómo arranco el servidor?", "Arranca el servidor con `cauce serve`", "Primeros pasos — Arrancar el servidor"),
    ("¿Cómo apago el servidor?", "SIGTERM", "Operación — Apagar el servidor"),
    ("¿Cómo desactivo la búsqueda de servidores?", "enabled = false", "Servidores locales — Desactivar la búsqueda"),
    ("como anado un proveedor", "[providers.mistral]", "Proveedores — Configurar un proveedor"),
    ("donde esta el archivo de configuracion", "Cauce lee el archivo `cauce.toml`", "El archivo de configuración"),
    ("¿qué códigos de error hay?", "| `payload_too_large` | 413 |", "API HTTP — Códigos de error"),
    ("¿cuánto cuesta?", "`cost_source` es", "API HTTP — Coste"),
    ("¿Qué es Cauce?", "Cauce es un servidor que se pone entre", "Introducción — Qué es Cauce"),
]

FOREIGN_ENGLISH = [
    "Who won the 1998 world cup?",
    "Write me a poem about rain",
    "Write a haiku about servers",
    "Write a python function that reverses a list",
    "What is the capital of France?",
    "What is 2+2?",
    "What time is it?",
    "How do I bake a chocolate cake?",
    "How do I install Windows?",
    "How do I open a bank account?",
    "What is my name?",
    "Where do I live?",
    "Wie ändere ich den Port?",
    "ping",
]

FOREIGN_SPANISH = [
    "¿Quién ganó el mundial de 1998?",
    "Escríbeme un poema sobre la lluvia",
    "Escribe un cuento sobre un río",
    "¿Cuál es la capital de Francia?",
    "¿Cuánto es 2+2?",
    "¿Qué hora es?",
    "¿Cómo hago una tortilla de patatas?",
    "¿Cómo me llamo?",
    "Dame un resumen de este texto",
]


@pytest.mark.parametrize(("question", "said", "source"), ENGLISH)
def test_question_in_english_is_answered_from_the_english_page(ask: Ask, question: str, said: str, source: str) -> None:
    answer = ask(question)
    body, _, sources = answer.partition("\n\nSources:\n")
    assert said in body
    assert source in sources


@pytest.mark.parametrize(("question", "said", "source"), SPANISH)
def test_question_in_spanish_is_answered_from_the_spanish_page(ask: Ask, question: str, said: str, source: str) -> None:
    answer = ask(question)
    body, _, sources = answer.partition("\n\nFuentes:\n")
    assert said in body
    assert source in sources


@pytest.mark.parametrize("question", [question for question, _, _ in (*ENGLISH, *SPANISH)])
def test_every_citation_has_its_source_and_every_source_its_citation(ask: Ask, question: str) -> None:
    body, _, sources = re.split(r"\n\n(Sources|Fuentes):\n", ask(question))
    listed = re.findall(r"^- \[(\d)\] .+$", sources, re.M)
    without_code = re.sub(r"```.*?```", "", body, flags=re.S)
    assert re.findall(r"\[(\d)\]", without_code) == listed == [str(place + 1) for place in range(len(listed))]


@pytest.mark.parametrize("question", FOREIGN_ENGLISH)
def test_question_the_guide_cannot_answer_is_refused_in_english_with_a_way_on(ask: Ask, question: str) -> None:
    answer = ask(question)
    assert answer.startswith("I found no answer to that")
    assert "I am not a language model" in answer
    assert all([way in answer for way in ("OPENAI_API_KEY", "Ollama", "cauce config init")])
    assert "Sources:" not in answer


@pytest.mark.parametrize("question", FOREIGN_SPANISH)
def test_question_the_guide_cannot_answer_is_refused_in_spanish_with_a_way_on(ask: Ask, question: str) -> None:
    answer = ask(question)
    assert answer.startswith("No he encontrado respuesta a eso")
    assert "no soy un modelo de lenguaje" in answer
    assert all([way in answer for way in ("OPENAI_API_KEY", "Ollama", "cauce config init")])
    assert "Fuentes:" not in answer


@pytest.mark.parametrize("greeting", ["hi", "Hello!", "Hey there", "Who are you?", "Are you ChatGPT?", "help", ""])
def test_greeting_is_answered_with_an_honest_introduction(ask: Ask, greeting: str) -> None:
    assert ask(greeting).startswith("Hello! I am Cauce's offline answerer, not a language model")


@pytest.mark.parametrize("greeting", ["hola", "¡Hola! ¿Qué tal?", "Buenos días", "¿Quién eres?", "¿Eres ChatGPT?"])
def test_greeting_in_spanish_is_answered_in_spanish(ask: Ask, greeting: str) -> None:
    assert ask(greeting).startswith("¡Hola! Soy el respondedor sin conexión de Cauce, no un modelo de lenguaje")


def test_thanks_are_not_searched_for(ask: Ask) -> None:
    assert ask("thanks a lot!") == "You are welcome. Ask me anything about Cauce."
    assert ask("¡Muchas gracias!") == "De nada. Pregúntame lo que quieras sobre Cauce."


def test_greeting_before_a_question_does_not_hide_it(ask: Ask) -> None:
    assert ask("Hello, how do I change the port?") == ask("How do I change the port?")


def test_block_of_code_is_quoted_whole(ask: Ask) -> None:
    block = "```toml\n[discovery]\nenabled = false\n```"
    assert block in ask("¿Cómo desactivo la búsqueda de servidores?")


def test_row_of_a_table_is_quoted_with_its_header(ask: Ask) -> None:
    assert "| error_code | status | meaning |\n|---|---|---|\n| " in ask("What does payload_too_large mean?")


def test_words_are_found_without_their_accents(ask: Ask) -> None:
    assert (
        ask("¿Que variables de configuracion hay?").split("Fuentes")[1]
        == (ask("¿Qué variables de configuración hay?").split("Fuentes")[1])
    )


def test_question_without_a_subject_goes_on_with_the_one_before(ask: Ask) -> None:
    assert "cascade" in ask("What is a cascade?", "A list.", "How do I configure it?")


def test_language_of_a_bare_word_is_that_of_the_conversation(ask: Ask) -> None:
    assert "Fuentes:" in ask("¿Qué es auto?", "Una cascada.", "OPENAI_API_KEY")
    assert "Sources:" in ask("What is auto?", "A cascade.", "OPENAI_API_KEY")


def test_answers_do_not_depend_on_the_process(ask: Ask) -> None:
    questions = ["How do I configure a provider?", "¿Qué hace cauce check?", "What is max_tokens?"]
    program = (
        "import sys\n"
        "from tests.unit.providers.offline.conftest import Library, conversation, packaged_pages\n"
        "library = Library(packaged_pages())\n"
        "sys.stdout.buffer.write(''.join([''.join(library.answer(conversation(q))) for q in sys.argv[1:]]).encode())\n"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, *questions], capture_output=True, env={"PYTHONHASHSEED": seed}, check=True
        )
        assert done.stdout.decode() == "".join([ask(question) for question in questions])


@given(st.text(max_size=200))
def test_any_text_is_answered(library: Library, text: str) -> None:
    assert "".join(library.answer(conversation(text))).strip()


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "'",
        'port" OR "key',
        "NEAR(port key)",
        "port*",
        "title:port",
        "-port",
        "port AND",
        "(((",
        "^port",
        "a\0port",
        "{port}",
    ],
)
def test_query_syntax_of_the_search_engine_means_nothing(library: Library, question: str) -> None:
    assert library.answer(conversation(question))


def test_very_long_words_and_messages_are_read_in_part(library: Library) -> None:
    assert library.answer(conversation("x" * 1_000_000))
    assert "--port 9000" in "".join(library.answer(conversation("How do I change the port? " + "the " * 100_000)))


@pytest.mark.parametrize("question", ["x", "x?", "k v"])
def test_letters_alone_ask_about_nothing(ask: Ask, question: str) -> None:
    assert "OPENAI_API_KEY" in ask(question)
