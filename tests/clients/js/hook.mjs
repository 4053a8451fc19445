// The hook that the guide shows, in React without a browser: `node hook.mjs MODULE '{"id": …}'` where the hook is MODULE's `useAnswers`.
// Commands come on its input, one line of JSON each, and each is answered with one.
import { createElement, useEffect } from "react";
import { create } from "react-test-renderer";
import { createInterface } from "node:readline";

// It says that it is deprecated: nothing else draws without a document.
console.error = () => {};
const { id } = JSON.parse(process.argv[3]);
const { useAnswers } = await import(process.argv[2]);

let shown, page;
let waiting = [];
function Page() {
  const chat = useAnswers(id);
  useEffect(() => {
    shown = chat;
    waiting = waiting.filter(({ fits, resolve }) => !(fits() && (resolve(), true)));
  });
  return null;
}

const text = () => (shown.messages.at(-1)?.parts ?? []).map((part) => part.text ?? "").join("");
const seen = () => ({
  text: text(),
  status: shown.status,
  roles: shown.messages.map(({ role }) => role),
  metadata: shown.messages.at(-1)?.metadata ?? null,
});
async function until(fits) {
  if (!fits()) await new Promise((resolve) => waiting.push({ fits, resolve }));
  return seen();
}

const commands = {
  load: () => {
    shown = undefined;
    page = create(createElement(Page));
    return until(() => shown !== undefined);
  },
  close: () => (page.unmount(), {}),
  // Not awaited: it is over when the answer is.
  send: ({ text }) => (void shown.sendMessage({ text }), {}),
  until: ({ text: wanted }) => until(() => text().includes(wanted)),
  settled: () => until(() => shown.status === "ready" && shown.messages.length > 0),
  stop: async () => (await shown.stop(), until(() => shown.status === "ready")),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...command } = JSON.parse(line);
  console.log(JSON.stringify(await commands[name](command)));
}
process.exit(0);
