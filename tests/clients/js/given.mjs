// What every client is told to send; `py/given.py` says the same.
export const sayHello = "Say hello.";
export const system = "Answer briefly.";
export const turns = [
  { role: "user", content: "What is a river?" },
  { role: "assistant", content: "Water that runs." },
  { role: "user", content: "And a lake?" },
];
export const askWeather = "How is the weather in Sevilla?";
export const weather = "weather";
export const weatherTells = "Tells the weather of a city.";
export const weatherTakes = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const sky = '{"sky": "clear"}';
export const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const pngUrl = `data:image/png;base64,${png}`;
export const look = "What is in the picture?";
export const askAnimal = "Name an animal and count its legs.";
export const inputs = ["a river", "a lake"];
