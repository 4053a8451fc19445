// What `useChat` of the AI SDK is inside of React: a chat over `DefaultChatTransport`, with its state in plain fields.
// `node chat.mjs VERSION '{"base": …, "id": …}'` takes commands on its input and answers each with one line of JSON.
import { createInterface } from "node:readline";

const [version, given] = [process.argv[2], JSON.parse(process.argv[3])];
const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = await import(version);

let waiting = [];
const changed = () => {
  waiting = waiting.filter(({ fits, resolve }) => !(fits() && (resolve(), true)));
};
const until = (fits) => (fits() ? undefined : new Promise((resolve) => waiting.push({ fits, resolve })));

class State {
  constructor(messages) {
    this.messages = messages;
    this.error = undefined;
    this.current = "ready";
  }
  get status() {
    return this.current;
  }
  set status(status) {
    this.current = status;
    changed();
  }
  pushMessage = (message) => {
    this.messages = [...this.messages, message];
    changed();
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = this.messages.map((one, place) => (place === index ? structuredClone(message) : one));
    changed();
  };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {}

const requests = [];
let answered = 0;
const recording = async (url, options) => {
  const response = await fetch(url, options);
  requests.push({ method: options.method, path: new URL(url).pathname, status: response.status });
  answered += 1;
  changed();
  return response;
};

const transport = () =>
  new DefaultChatTransport({
    api: `${given.base}/api/chat`,
    headers: given.headers,
    body: given.body,
    fetch: recording,
  });

let state, chat, data, finished, called;
function open(messages) {
  [data, finished, called] = [[], [], []];
  state = new State(messages);
  chat = new Chat({
    id: given.id,
    state,
    transport: transport(),
    onData: (part) => data.push(part),
    onFinish: ({ message, messages: _, ...how }) => finished.push({ id: message.id, ...how }),
    onToolCall: ({ toolCall }) => {
      called.push({ name: toolCall.toolName, input: toolCall.input });
      if (given.output !== undefined)
        chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: given.output });
    },
    sendAutomaticallyWhen: given.output === undefined ? undefined : lastAssistantMessageIsCompleteWithToolCalls,
  });
}

const textOf = (message) =>
  (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("");
const seen = () => ({
  messages: state.messages,
  text: textOf(state.messages.at(-1)),
  status: state.status,
  error: state.error?.message ?? null,
  data,
  finished,
  called,
  requests: requests.splice(0),
});

let running = Promise.resolve();
const begin = (work) => {
  running = work;
  return {};
};

const commands = {
  // Begins, and is over when `settled` is.
  send: ({ text }) => begin(chat.sendMessage({ text })),
  regenerate: () => begin(chat.regenerate()),
  resume: () => begin(chat.resumeStream()),
  settled: async () => (await running, seen()),
  until: async ({ text }) => (await until(() => textOf(state.messages.at(-1)).includes(text)), seen()),
  // Until so many requests of the chat have got their headers.
  answered: async ({ count }) => (await until(() => answered >= count), {}),
  // What a page that is loaded again begins with.
  reload: ({ messages }) => (open(messages ?? state.messages.filter(({ role }) => role === "user")), {}),
  leave: async () => (await chat.stop(), seen()),
  stop: async ({ body }) => {
    const response = await fetch(`${given.base}/api/chat/${encodeURIComponent(given.id)}/stop`, {
      method: "POST",
      headers: { "content-type": "application/json", ...given.headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    return { status: response.status, told: response.status === 200 ? await response.json() : null };
  },
};

open([]);
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...command } = JSON.parse(line);
  console.log(JSON.stringify(await commands[name](command)));
}
process.exit(0);
