// The official `openai` SDK, unchanged: `node sdk.mjs CASE '{"baseURL": …, "apiKey": …}'` prints what it saw as one line of JSON.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { model = "up/m", ...options } = JSON.parse(process.argv[3]);
const client = new OpenAI({ apiKey: "any", maxRetries: 0, timeout: 20_000, ...options });

const messages = [{ role: "user", content: "Say hello." }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", description: "Tells the weather.", parameters } }];
const Animal = z.object({ name: z.string(), legs: z.number() });

const kindOf = (error) => ({
  kind: error.constructor.name,
  status: error.status ?? null,
  code: error.code ?? null,
  type: error.type ?? null,
  param: error.param ?? null,
  message: error.message,
  isAPIError: error instanceof OpenAI.APIError,
  requestID: error.requestID ?? null,
});

const failing = async (work) => {
  try {
    return { kind: "nothing was thrown", result: await work() };
  } catch (error) {
    return kindOf(error);
  }
};

const drain = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};

const cases = {
  chat: () => client.chat.completions.create({ model, messages, temperature: 0.2 }),

  async headers() {
    const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
    return { text: data.choices[0].message.content, headers: Object.fromEntries(response.headers) };
  },

  async stream() {
    // The loop of the SDK's own README.
    let text = "";
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    return { text };
  },

  async usage() {
    const stream_options = { include_usage: true };
    return drain(await client.chat.completions.create({ model, messages, stream: true, stream_options }));
  },

  async background() {
    const events = [];
    const body = { model, input: "Say hello.", background: true };
    const stream = await client.responses.create({ ...body, stream: true });
    for await (const event of stream) {
      events.push(event);
      if (event.type === "response.output_text.delta") break;
    }
    const { id } = events[0].response;
    const starting_after = events.at(-1).sequence_number;
    events.push(...(await drain(await client.responses.retrieve(id, { stream: true, starting_after }))));
    const created = await client.responses.create(body);
    let polled = created;
    while (["queued", "in_progress"].includes(polled.status)) polled = await client.responses.retrieve(created.id);
    return { events, created, polled, cancelled: await client.responses.cancel(id) };
  },

  async helper() {
    const seen = [];
    const stream = client.chat.completions.stream({ model, messages });
    stream.on("content", (delta, snapshot) => seen.push([delta, snapshot]));
    return { seen, completion: await stream.finalChatCompletion(), text: await stream.finalContent() };
  },

  toolsPlain: () => client.chat.completions.create({ model, messages, tools, tool_choice: "required" }),

  async toolsStreamed() {
    const seen = [];
    const stream = client.chat.completions.stream({ model, messages, tools, parallel_tool_calls: true });
    stream.on("tool_calls.function.arguments.done", (call) => seen.push([call.index, call.name, call.arguments]));
    return { seen, completion: await stream.finalChatCompletion() };
  },

  async toolsRun() {
    const asked = [];
    const run = (given) => {
      asked.push(given);
      return { sky: "clear" };
    };
    const tool = { type: "function", function: { ...tools[0].function, function: run, parse: JSON.parse } };
    const plain = await client.chat.completions.runTools({ model, messages, tools: [tool] }).finalContent();
    const streamed = await client.chat.completions.runTools({ model, messages, tools: [tool], stream: true }).finalContent();
    return { asked, plain, streamed };
  },

  async structured() {
    const response_format = zodResponseFormat(Animal, "animal");
    const plain = await client.chat.completions.parse({ model, messages, response_format });
    const stream = client.chat.completions.stream({ model, messages, response_format });
    const streamed = await stream.finalChatCompletion();
    return { plain: plain.choices[0].message.parsed, streamed: streamed.choices[0].message.parsed };
  },

  async schema() {
    const properties = { name: { type: "string" }, legs: { type: "integer" } };
    const schema = { type: "object", properties, required: ["name", "legs"], additionalProperties: false };
    const response_format = { type: "json_schema", json_schema: { name: "animal", strict: true, schema } };
    const completion = await client.chat.completions.create({ model, messages, response_format });
    return JSON.parse(completion.choices[0].message.content);
  },

  async models() {
    const listed = [];
    for await (const one of client.models.list()) listed.push(one);
    return { listed, one: await client.models.retrieve("up/m"), missing: await failing(() => client.models.retrieve("up/none/x")) };
  },

  // As many calls as the test has prepared answers for.
  async errors() {
    const results = [];
    for (const stream of JSON.parse(process.argv[4])) {
      results.push(await failing(() => client.chat.completions.create({ model, messages, stream })));
    }
    return results;
  },

  async refusals() {
    return {
      model: await failing(() => client.chat.completions.create({ model: "nope", messages })),
      empty: await failing(() => client.chat.completions.create({ model, messages: [] })),
      field: await failing(() => client.chat.completions.create({ model, messages, temperature: "warm" })),
      path: await failing(() => client.post("/nowhere", { body: {} })),
      key: await failing(() => client.withOptions({ apiKey: "wrong" }).models.list()),
      keyOfChat: await failing(() => client.withOptions({ apiKey: "wrong" }).chat.completions.create({ model, messages })),
      keyOfStream: await failing(() =>
        client.withOptions({ apiKey: "wrong" }).chat.completions.create({ model, messages, stream: true }),
      ),
    };
  },

  async broken() {
    const texts = [];
    const error = await failing(async () => {
      const stream = await client.chat.completions.create({ model, messages, stream: true });
      for await (const chunk of stream) texts.push([chunk.choices[0].delta.content ?? "", chunk.choices[0].finish_reason]);
    });
    const helper = await failing(() => client.chat.completions.stream({ model, messages }).finalContent());
    return { texts, error, helper };
  },

  async abortedByController() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    const texts = [];
    for await (const chunk of stream) {
      // The first chunk names the role and has no text.
      if (chunk.choices[0].delta.content) texts.push(chunk.choices[0].delta.content);
      if (texts.length === 2) stream.controller.abort();
    }
    return { texts };
  },

  async abortedBySignal() {
    const stopping = new AbortController();
    const stream = await client.chat.completions.create({ model, messages, stream: true }, { signal: stopping.signal });
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content === "b ") stopping.abort();
    }
    return { aborted: stopping.signal.aborted };
  },

  async abortedByLeaving() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content === "b ") break;
    return { left: true };
  },

  async abortedByHelper() {
    const stream = client.chat.completions.stream({ model, messages });
    stream.on("content", (_, snapshot) => snapshot === "a b " && stream.abort());
    return failing(() => stream.finalContent());
  },

  // Leaves before anything has been answered, as people do whose patience ends.
  timedOut: () => failing(() => client.chat.completions.create({ model, messages }, { timeout: 500 })),
};

const result = await cases[process.argv[2]]();
process.stdout.write(JSON.stringify(result) + "\n");
// What an abort does is looked at while this process still runs.
if (process.argv[2].startsWith("aborted")) await new Promise((resolve) => process.stdin.once("data", resolve).once("end", resolve));
