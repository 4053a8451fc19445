"""A worker that runs no model: the last message of a request says what it does. It speaks the protocol of `cauce.providers.llamacpp`.

Started by the tests as a program of its own, with nothing but the standard library.
"""

import json
import os
import queue
import signal
import sys
import threading
import time

commands: "queue.SimpleQueue[dict[str, object]]" = queue.SimpleQueue()
stopped: set[object] = set()
loaded: set[str] = set()


def say(kind: str, number: object, /, **fields: object) -> None:
    sys.stdout.write(json.dumps({"type": kind, "number": number, **fields}) + "\n")
    sys.stdout.flush()


def listen() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["type"] == "stop":
            stopped.add(command["number"])
        elif command["type"] == "count" and command["model"]["path"] in loaded:
            say("counted", command["number"], tokens=42)
        else:
            commands.put(command)
    os._exit(0)


def until_stopped(number: object) -> None:
    while number not in stopped:
        time.sleep(0.002)


def generate(number: object, words: list[str]) -> None:
    match words:
        case ["say", *said]:
            for word in said:
                say("piece", number, text=word)
            say("done", number, reason="stop", input_tokens=7, output_tokens=len(said))
        case ["endless"]:
            while number not in stopped:
                say("piece", number, text="x")
                time.sleep(0.001)
            say("done", number, reason="cancelled", input_tokens=7, output_tokens=1)
        case ["quiet"]:
            say("piece", number, text="x")
            until_stopped(number)
            say("done", number, reason="cancelled", input_tokens=7, output_tokens=1)
        case ["stubborn"]:
            say("piece", number, text="x")
            while True:
                say("piece", number, text="")
                time.sleep(0.01)
        case ["exit", status]:
            say("piece", number, text="x")
            print("last words", file=sys.stderr, flush=True)
            os._exit(int(status))
        case ["signal"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["raw", *text]:
            sys.stdout.write(" ".join(text) + "\n")
            sys.stdout.flush()
            time.sleep(60)
        case ["flood"]:
            sys.stdout.write("x" * 3_000_000)
            sys.stdout.flush()
            time.sleep(60)
        case ["mute"]:
            os.close(1)
            time.sleep(60)
        case ["fail", kind]:
            say("failed", number, kind=kind, message="so it is")
        case _:
            raise AssertionError(words)


def work() -> None:
    while True:
        command = commands.get()
        number = command["number"]
        path = command["model"]["path"]
        if path == "slow" and path not in loaded:
            # A model that is not loaded before nobody wants it any more.
            until_stopped(number)
            time.sleep(0.3)
        if path == "absent":
            say("absent", 0, message="no such library; install it")
            return
        if path not in loaded:
            loaded.clear()
            loaded.add(path)
            say("loaded", number)
        if number in stopped:
            say("done", number, reason="cancelled", input_tokens=7, output_tokens=0)
        elif command["type"] == "count":
            say("counted", number, tokens=42)
        else:
            generate(number, command["prompt"]["messages"][-1]["content"].split())


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    work()
