// The Vercel AI SDK over three of its providers; `api` says which.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import * as given from "./given.mjs";
import { refused, serve } from "./worker.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const Animal = z.object({ name: z.string(), legs: z.number().int() });
const baseURL = ({ base_url }) => `${base_url}/v1`;
const compatible = (asked) =>
  createOpenAICompatible({
    name: "cauce",
    baseURL: baseURL(asked),
    apiKey: asked.api_key,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const openai = (asked) => createOpenAI({ baseURL: baseURL(asked), apiKey: asked.api_key });

const models = {
  compatible: (asked) => compatible(asked)(asked.model),
  openai: (asked) => openai(asked).responses(asked.model),
  anthropic: (asked) => createAnthropic({ baseURL: baseURL(asked), apiKey: asked.api_key })(asked.model),
};
// For a model that the SDK does not know by its name.
const thinking = {
  compatible: { cauce: { reasoningEffort: "high" } },
  openai: {
    openai: { reasoningEffort: "high", reasoningSummary: "auto", forceReasoning: true, store: false },
  },
  anthropic: { anthropic: { thinking: { type: "enabled", budgetTokens: 2048 } } },
};

const typed = { prompt: given.askAnimal, output: Output.object({ schema: Animal }) };
// Where the SDK would go by the name of the model; by itself it offers a tool.
const native = { anthropic: { providerOptions: { anthropic: { structuredOutputMode: "outputFormat" } } } };

// Errors are what a case is about, so they are thrown, not printed.
const asking = (asked, more) => ({
  model: models[asked.api](asked),
  maxRetries: 0,
  onError: () => {},
  ...(asked.api === "openai" ? { providerOptions: { openai: { store: false } } } : {}),
  ...("messages" in more ? {} : { prompt: given.sayHello }),
  ...more,
});
const generate = (asked, more = {}) => generateText(asking(asked, more));

async function stream(asked, more = {}) {
  const result = streamText(asking(asked, more));
  let [text, reasoning] = ["", ""];
  for await (const part of result.stream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "reasoning-delta") reasoning += part.text;
    if (part.type === "error") throw part.error;
  }
  return { text, reasoning, result };
}

const tooled = (calls) => ({
  prompt: given.askWeather,
  stopWhen: stepCountIs(3),
  tools: {
    [given.weather]: tool({
      description: given.weatherTells,
      inputSchema: jsonSchema(given.weatherTakes),
      execute: (input) => {
        calls.push([given.weather, input]);
        return JSON.parse(given.sky);
      },
    }),
  },
});
const last = (calls, text) => ({ calls, text });
const counted = (usage) => ({
  input: usage.inputTokens,
  output: usage.outputTokens,
  cached: usage.inputTokenDetails?.cacheReadTokens ?? null,
  reasoning: usage.outputTokenDetails?.reasoningTokens ?? null,
});

const cases = {
  plain: async (asked) => ({ text: (await generate(asked)).text }),
  stream: async (asked) => ({ text: (await stream(asked)).text }),
  turns: async (asked) => ({
    text: (await generate(asked, { instructions: given.system, messages: given.turns })).text,
  }),
  async tools(asked, more = {}) {
    const calls = [];
    return last(calls, (await generate(asked, { ...tooled(calls), ...more })).text);
  },
  async tools_stream(asked, more = {}) {
    const calls = [];
    return last(calls, (await stream(asked, { ...tooled(calls), ...more })).text);
  },
  signed: (asked) => cases.tools(asked, { providerOptions: thinking[asked.api] }),
  signed_stream: (asked) => cases.tools_stream(asked, { providerOptions: thinking[asked.api] }),
  async image(asked) {
    const content = [
      { type: "text", text: given.look },
      { type: "file", data: given.png, mediaType: "image/png" },
    ];
    return { text: (await generate(asked, { messages: [{ role: "user", content }] })).text };
  },
  async structured(asked) {
    return { value: (await generate(asked, { ...typed, ...native[asked.api] })).output };
  },
  async structured_stream(asked) {
    return { value: await (await stream(asked, { ...typed, ...native[asked.api] })).result.output };
  },
  structured_tool: async (asked) => ({ value: (await generate(asked, typed)).output }),
  async reasoning(asked) {
    const done = await generate(asked, { providerOptions: thinking[asked.api] });
    return { text: done.text, reasoning: done.reasoningText ?? null };
  },
  async reasoning_stream(asked) {
    const { text, reasoning } = await stream(asked, { providerOptions: thinking[asked.api] });
    return { text, reasoning };
  },
  usage: async (asked) => counted((await generate(asked)).usage),
  usage_stream: async (asked) => counted(await (await stream(asked)).result.usage),
  error: (asked) => refused(() => generate(asked)),
  error_stream: (asked) => refused(() => stream(asked)),
  async broken(asked) {
    let text = "";
    const finish = [];
    const told = await refused(async () => {
      for await (const part of streamText(asking(asked, {})).stream) {
        if (part.type === "text-delta") text += part.text;
        if (part.type === "error") throw part.error;
        if (part.type === "finish" && part.finishReason === "stop") finish.push(part.finishReason);
        // A body that ends early is told as a finish for no known reason.
        if (part.type === "finish" && part.finishReason !== "stop") throw new Error(`finished: ${part.finishReason}`);
      }
    });
    return { ...told, text, finish };
  },
  async cancel(asked) {
    const leaving = new AbortController();
    let text = "";
    for await (const piece of streamText(asking(asked, { abortSignal: leaving.signal })).textStream) {
      text += piece;
      if (text === "a b ") leaving.abort();
    }
    return { text };
  },
  async embeddings(asked) {
    const model = asked.api === "compatible" ? compatible(asked).embeddingModel(asked.model) : openai(asked).embedding(asked.model);
    return { vectors: (await embedMany({ model, values: given.inputs, maxRetries: 0 })).embeddings };
  },
};

await serve(cases);
