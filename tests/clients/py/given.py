"""What every client is told to send. `js/given.mjs` says the same."""

import base64

SAY_HELLO = "Say hello."
SYSTEM = "Answer briefly."
TURNS = (("user", "What is a river?"), ("assistant", "Water that runs."), ("user", "And a lake?"))
ASK_WEATHER = "How is the weather in Sevilla?"
WEATHER = "weather"
WEATHER_TELLS = "Tells the weather of a city."
WEATHER_TAKES = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SKY = '{"sky": "clear"}'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_BASE64 = base64.b64encode(PNG).decode()
PNG_URL = f"data:image/png;base64,{PNG_BASE64}"
LOOK = "What is in the picture?"
ASK_ANIMAL = "Name an animal and count its legs."
ANIMAL = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "legs": {"type": "integer"}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}
INPUTS = ("a river", "a lake")
