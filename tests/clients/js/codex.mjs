// The coding agent Codex, run without a screen against a provider of its configuration that speaks Responses.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import * as given from "./given.mjs";
import { serve } from "./worker.mjs";

const program = createRequire(import.meta.url).resolve("@openai/codex/bin/codex.js");
const notes = "the river runs\n";
const schema = {
  type: "object",
  properties: { name: { type: "string" }, legs: { type: "integer" } },
  required: ["name", "legs"],
  additionalProperties: false,
};

// A home of its own, a folder to work in, and what it shall know of the provider.
function settle(asked) {
  const home = mkdtempSync(path.join(asked.folder, "codex-"));
  const work = path.join(home, "work");
  mkdirSync(work);
  writeFileSync(path.join(work, "notes.txt"), notes);
  writeFileSync(path.join(work, "schema.json"), JSON.stringify(schema));
  writeFileSync(path.join(work, "picture.png"), Buffer.from(given.png, "base64"));
  const config = `
model = "${asked.model}"
model_provider = "cauce"
model_reasoning_effort = "high"
model_reasoning_summary = "auto"
model_supports_reasoning_summaries = true
check_for_update_on_startup = false

[model_providers.cauce]
name = "Cauce"
base_url = "${asked.base_url}/v1"
env_key = "CAUCE_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false
`;
  writeFileSync(path.join(home, "config.toml"), config);
  return { home, work };
}

// What it told, event by event; `leave` is called with each and may end the program.
async function codex(asked, prompt, more = [], leave = () => false) {
  const { home, work } = settle(asked);
  const command = [program, "exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", ...more, "--", prompt];
  const running = spawn(process.execPath, command, {
    cwd: work,
    env: { PATH: process.env.PATH, HOME: home, CODEX_HOME: home, CAUCE_KEY: asked.api_key },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaints = "";
  running.stderr.on("data", (data) => (complaints += data));
  const ended = new Promise((resolve) => running.on("close", resolve));
  const events = [];
  for await (const line of createInterface({ input: running.stdout })) {
    const event = JSON.parse(line);
    events.push(event);
    if (leave(event)) running.kill("SIGINT");
  }
  const code = await ended;
  const items = events.filter((event) => event.type === "item.completed").map((event) => event.item);
  const texts = (type) => items.filter((item) => item.type === type).map((item) => item.text);
  const failure = events.find((event) => event.type === "turn.failed");
  return {
    text: texts("agent_message").join(""),
    reasoning: texts("reasoning").join(""),
    commands: items.filter((item) => item.type === "command_execution").map((item) => item.aggregated_output),
    usage: events.find((event) => event.type === "turn.completed")?.usage ?? null,
    error: failure ? failure.error.message : code === 0 ? null : `exit code ${code}: ${complaints}`,
  };
}

const told = ({ text, error }) => {
  if (error) throw new Error(error);
  return { text };
};
// The sentence it shows has the status in it.
const failed = ({ error }) => ({ error, status: Number(/\b([45]\d\d)\b/.exec(error ?? "")?.[1]) || null });

await serve({
  stream: async (asked) => told(await codex(asked, given.sayHello)),
  async tools_stream(asked) {
    const { text, commands, error } = await codex(asked, "What do the notes say?");
    if (error) throw new Error(error);
    return { text, commands };
  },
  image: async (asked) => told(await codex(asked, given.look, ["--image", "picture.png"])),
  async structured_stream(asked) {
    return { value: JSON.parse(told(await codex(asked, given.askAnimal, ["--output-schema", "schema.json"])).text) };
  },
  async reasoning_stream(asked) {
    const { text, reasoning } = await codex(asked, given.sayHello);
    return { text, reasoning };
  },
  async usage_stream(asked) {
    const { usage } = await codex(asked, given.sayHello);
    return {
      input: usage.input_tokens,
      output: usage.output_tokens,
      cached: usage.cached_input_tokens,
      reasoning: usage.reasoning_output_tokens,
    };
  },
  error: async (asked) => failed(await codex(asked, given.sayHello)),
  async broken(asked) {
    const { error } = await codex(asked, given.sayHello);
    return { error };
  },
});
