// The official `openai` SDK: Chat Completions, or Responses if `api` says so.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as given from "./given.mjs";
import { refused, serve } from "./worker.mjs";

const Animal = z.object({ name: z.string(), legs: z.number().int() });
const hello = [{ role: "user", content: given.sayHello }];
const described = { name: given.weather, description: given.weatherTells, parameters: given.weatherTakes };
const client = ({ base_url, api_key, headers }) =>
  new OpenAI({ baseURL: `${base_url}/v1`, apiKey: api_key, maxRetries: 0, timeout: 20_000, defaultHeaders: headers });

const chat = {
  create: (asked, more) => client(asked).chat.completions.create({ model: asked.model, messages: hello, ...more }),

  async plain(asked) {
    const { choices } = await chat.create(asked);
    return { text: choices[0].message.content };
  },
  async stream(asked) {
    let text = "";
    for await (const chunk of await chat.create(asked, { stream: true })) text += chunk.choices[0].delta.content ?? "";
    return { text };
  },
  async turns(asked) {
    const { choices } = await chat.create(asked, { messages: [{ role: "system", content: given.system }, ...given.turns] });
    return { text: choices[0].message.content };
  },
  async tools(asked, streamed = false) {
    const messages = [{ role: "user", content: given.askWeather }];
    const calls = [];
    for (;;) {
      const request = { model: asked.model, messages, tools: [{ type: "function", function: described }] };
      const completions = client(asked).chat.completions;
      const done = streamed ? await completions.stream(request).finalChatCompletion() : await completions.create(request);
      const { message, finish_reason } = done.choices[0];
      if (finish_reason !== "tool_calls") return { calls, text: message.content };
      messages.push(message);
      for (const call of message.tool_calls) {
        calls.push([call.function.name, JSON.parse(call.function.arguments)]);
        messages.push({ role: "tool", tool_call_id: call.id, content: given.sky });
      }
    }
  },
  tools_stream: (asked) => chat.tools(asked, true),
  async image(asked) {
    const content = [
      { type: "text", text: given.look },
      { type: "image_url", image_url: { url: given.pngUrl } },
    ];
    const { choices } = await chat.create(asked, { messages: [{ role: "user", content }] });
    return { text: choices[0].message.content };
  },
  async structured(asked) {
    const response_format = zodResponseFormat(Animal, "animal");
    const messages = [{ role: "user", content: given.askAnimal }];
    const { choices } = await client(asked).chat.completions.parse({ model: asked.model, messages, response_format });
    return { value: choices[0].message.parsed };
  },
  async structured_stream(asked) {
    const response_format = zodResponseFormat(Animal, "animal");
    const messages = [{ role: "user", content: given.askAnimal }];
    const stream = client(asked).chat.completions.stream({ model: asked.model, messages, response_format });
    return { value: (await stream.finalChatCompletion()).choices[0].message.parsed };
  },
  async reasoning(asked) {
    const { message } = (await chat.create(asked, { reasoning_effort: "high" })).choices[0];
    return { text: message.content, reasoning: message.reasoning_content ?? null };
  },
  async reasoning_stream(asked) {
    let [text, reasoning] = ["", ""];
    for await (const chunk of await chat.create(asked, { reasoning_effort: "high", stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
      reasoning += chunk.choices[0].delta.reasoning_content ?? "";
    }
    return { text, reasoning };
  },
  counted: (usage) => ({
    input: usage.prompt_tokens,
    output: usage.completion_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? null,
    reasoning: usage.completion_tokens_details?.reasoning_tokens ?? null,
  }),
  usage: async (asked) => chat.counted((await chat.create(asked)).usage),
  async usage_stream(asked) {
    let last;
    const stream = await chat.create(asked, { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) last = chunk.usage ?? last;
    return chat.counted(last);
  },
  error: (asked) => refused(() => chat.create(asked)),
  error_stream: (asked) => refused(() => chat.create(asked, { stream: true })),
  async broken(asked) {
    let text = "";
    const finish = [];
    const told = await refused(async () => {
      for await (const chunk of await chat.create(asked, { stream: true })) {
        text += chunk.choices[0].delta.content ?? "";
        if (chunk.choices[0].finish_reason) finish.push(chunk.choices[0].finish_reason);
      }
    });
    return { ...told, text, finish };
  },
  async cancel(asked) {
    let text = "";
    for await (const chunk of await chat.create(asked, { stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
      if (text === "a b ") break;
    }
    return { text };
  },
  async embeddings(asked) {
    const done = await client(asked).embeddings.create({ model: asked.model, input: given.inputs });
    return { vectors: done.data.map((one) => one.embedding) };
  },
  async models(asked) {
    const names = [];
    for await (const model of client(asked).models.list()) names.push(model.id);
    return { names };
  },
  async legacy(asked) {
    const done = await client(asked).completions.create({ model: asked.model, prompt: given.sayHello });
    return { text: done.choices[0].text };
  },
  async legacy_stream(asked) {
    let text = "";
    const stream = await client(asked).completions.create({ model: asked.model, prompt: given.sayHello, stream: true });
    for await (const chunk of stream) text += chunk.choices[0]?.text ?? "";
    return { text };
  },
};

const thought = (done) =>
  done.output
    .filter((item) => item.type === "reasoning")
    .flatMap((item) => item.summary.map((part) => part.text))
    .join("");
const thinking = { reasoning: { effort: "high", summary: "auto" } };

const responses = {
  request: (asked, more) => ({ model: asked.model, input: given.sayHello, store: false, ...more }),
  create: (asked, more) => client(asked).responses.create(responses.request(asked, more)),

  plain: async (asked) => ({ text: (await responses.create(asked)).output_text }),
  async stream(asked) {
    let text = "";
    const stream = client(asked).responses.stream(responses.request(asked));
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
    const done = await stream.finalResponse();
    if (done.output_text !== text) throw new Error(`the deltas say ${text}, the response ${done.output_text}`);
    return { text };
  },
  async turns(asked) {
    const done = await responses.create(asked, { input: given.turns, instructions: given.system });
    return { text: done.output_text };
  },
  async tools(asked, streamed = false, more = {}) {
    const input = [{ role: "user", content: given.askWeather }];
    const calls = [];
    for (;;) {
      const request = responses.request(asked, { input, tools: [{ type: "function", strict: true, ...described }], ...more });
      const sdk = client(asked).responses;
      const done = streamed ? await sdk.stream(request).finalResponse() : await sdk.create(request);
      const asks = done.output.filter((item) => item.type === "function_call");
      if (asks.length === 0) return { calls, text: done.output_text };
      for (const { parsed_arguments, ...item } of done.output) input.push(item);
      for (const call of asks) {
        calls.push([call.name, JSON.parse(call.arguments)]);
        input.push({ type: "function_call_output", call_id: call.call_id, output: given.sky });
      }
    }
  },
  tools_stream: (asked) => responses.tools(asked, true),
  signed: (asked) => responses.tools(asked, false, { include: ["reasoning.encrypted_content"], ...thinking }),
  signed_stream: (asked) => responses.tools(asked, true, { include: ["reasoning.encrypted_content"], ...thinking }),
  async image(asked) {
    const content = [
      { type: "input_text", text: given.look },
      { type: "input_image", image_url: given.pngUrl, detail: "auto" },
    ];
    return { text: (await responses.create(asked, { input: [{ role: "user", content }] })).output_text };
  },
  async structured(asked) {
    const text = { format: zodTextFormat(Animal, "animal") };
    const done = await client(asked).responses.parse(responses.request(asked, { input: given.askAnimal, text }));
    return { value: done.output_parsed };
  },
  async structured_stream(asked) {
    const text = { format: zodTextFormat(Animal, "animal") };
    const stream = client(asked).responses.stream(responses.request(asked, { input: given.askAnimal, text }));
    return { value: (await stream.finalResponse()).output_parsed };
  },
  async reasoning(asked) {
    const done = await responses.create(asked, thinking);
    return { text: done.output_text, reasoning: thought(done) };
  },
  async reasoning_stream(asked) {
    let reasoning = "";
    const stream = client(asked).responses.stream(responses.request(asked, thinking));
    for await (const event of stream) if (event.type === "response.reasoning_summary_text.delta") reasoning += event.delta;
    return { text: (await stream.finalResponse()).output_text, reasoning };
  },
  counted: (usage) => ({
    input: usage.input_tokens,
    output: usage.output_tokens,
    cached: usage.input_tokens_details.cached_tokens,
    reasoning: usage.output_tokens_details.reasoning_tokens,
  }),
  usage: async (asked) => responses.counted((await responses.create(asked)).usage),
  async usage_stream(asked) {
    const done = await client(asked).responses.stream(responses.request(asked)).finalResponse();
    return responses.counted(done.usage);
  },
  error: (asked) => refused(() => responses.create(asked)),
  error_stream: (asked) => refused(() => responses.create(asked, { stream: true })),
  async broken(asked) {
    let text = "";
    const finish = [];
    const told = await refused(async () => {
      for await (const event of await responses.create(asked, { stream: true })) {
        if (event.type === "response.output_text.delta") text += event.delta;
        if (event.type === "response.completed") finish.push(event.type);
        if (event.type === "response.failed") throw new Error(event.response.error.message);
      }
    });
    return { ...told, text, finish };
  },
  async cancel(asked) {
    let text = "";
    for await (const event of await responses.create(asked, { stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (text === "a b ") break;
    }
    return { text };
  },
  async count(asked) {
    const done = await client(asked).responses.inputTokens.count({ model: asked.model, input: given.sayHello });
    return { input: done.input_tokens };
  },
};

const apis = { chat, responses };
const names = new Set([...Object.keys(chat), ...Object.keys(responses)]);
await serve(Object.fromEntries([...names].map((name) => [name, (asked) => apis[asked.api ?? "chat"][name](asked)])));
