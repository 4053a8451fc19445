"""The command line of `llm`, with a model of its file of further OpenAI models; each case is one or more commands."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import given
import worker
from click.testing import CliRunner
from llm.cli import cli

FUNCTION = """
def weather(city: str) -> str:
    "Tells the weather of a city."
    print("called with", city)
    return '{"sky": "clear"}'
"""
LIMIT_SECONDS = 20


def folder(asked: SimpleNamespace) -> Path:
    """A folder for its settings and its log, which knows the model as `m`."""
    made = Path(tempfile.mkdtemp(prefix="llm-", dir=asked.folder))
    model = {"model_id": "m", "model_name": asked.model, "api_base": f"{asked.base_url}/v1", "api_key_name": "k"}
    able = {"supports_tools": True, "supports_schema": True, "vision": True, "reasoning": True}
    way = {"responses": True} if asked.api == "responses" else {}
    (made / "extra-openai-models.yaml").write_text(json.dumps([{**model, **able, **way}]))
    (made / "keys.json").write_text(json.dumps({"k": asked.api_key}))
    return made


def command(home: Path, *arguments: str) -> str:
    """What a command printed. Run in this process, since starting one takes a second."""
    done = CliRunner().invoke(cli, list(arguments), env={"LLM_USER_PATH": str(home)}, catch_exceptions=False)
    if done.exit_code != 0:
        raise RuntimeError(done.output)
    return done.stdout


def asking(asked: SimpleNamespace, *arguments: str) -> str:
    return command(folder(asked), "prompt", "-m", "m", *arguments).strip()


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    return {"text": asking(asked, "--no-stream", given.SAY_HELLO)}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    return {"text": asking(asked, given.SAY_HELLO)}


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    home = folder(asked)
    (_, first), _, (_, second) = given.TURNS
    command(home, "prompt", "-m", "m", "-s", given.SYSTEM, first)
    return {"text": command(home, "prompt", "-c", "-s", given.SYSTEM, second).strip()}


@worker.case
def tools(asked: SimpleNamespace, *way: str) -> Any:
    home = folder(asked)
    text = command(home, "prompt", "-m", "m", "--functions", FUNCTION, *way, given.ASK_WEATHER)
    logged = json.loads(command(home, "logs", "list", "-n", "0", "--json"))
    calls = [[call["name"], call["arguments"]] for one in reversed(logged) for call in one["tool_calls"]]
    return {"calls": calls, "text": text.strip().splitlines()[-1]}


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked)


@worker.case
def image(asked: SimpleNamespace) -> Any:
    picture = Path(asked.folder) / "picture.png"
    picture.write_bytes(given.PNG)
    return {"text": asking(asked, "-a", str(picture), given.LOOK)}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    return {"value": json.loads(asking(asked, "--schema", json.dumps(given.ANIMAL), given.ASK_ANIMAL))}


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(asked, "--no-stream")


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    return counted(asked)


def counted(asked: SimpleNamespace, *way: str) -> Any:
    home = folder(asked)
    command(home, "prompt", "-m", "m", *way, given.SAY_HELLO)
    logged = json.loads(command(home, "logs", "list", "-n", "1", "--json"))[0]
    return {"input": logged["input_tokens"], "output": logged["output_tokens"]}


@worker.case
def error(asked: SimpleNamespace) -> Any:
    told = worker.refused(lambda: asking(asked, given.SAY_HELLO))
    # It prints a sentence; the status stands in it.
    status = next((int(word) for word in told.get("message", "").replace(",", " ").split() if word.isdigit()), None)
    return {"error": told["error"], "status": status, "message": told.get("message")}


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: asking(asked, given.SAY_HELLO))


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    with subprocess.Popen(
        [sys.executable, "-m", "llm", "prompt", "-m", "m", given.SAY_HELLO],
        env={**os.environ, "LLM_USER_PATH": str(folder(asked)), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:
        assert running.stdout is not None
        seen = ""
        while seen != "a b ":
            seen += running.stdout.read(1).decode()
        running.send_signal(signal.SIGINT)
        running.wait(LIMIT_SECONDS)
    return {"text": seen}


if __name__ == "__main__":
    worker.serve()
