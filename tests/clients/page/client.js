// The chat client that pages of such services have: it reads `data: ` lines, keeps no cursor, and knows four types of message.
"use strict";

const RECONNECT_MS = 50;
const MAX_RECONNECTS = 5;

class StreamingChat {
  constructor(server, id, show) {
    this.url = `${server}/chat/stream/${id}`;
    this.show = show;
    this.text = "";
    this.finished = false;
    this.reconnects = 0;
    this.connection = null;
    this.log = []; // Every message, for those who watch this page.
    this.headers = {};
  }

  async send(question) {
    const body = JSON.stringify({ messages: [{ role: "user", content: question }], model: "tu-modelo" });
    await this.follow(this.url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  }

  async reconnect() {
    if (this.finished || this.reconnects >= MAX_RECONNECTS) return;
    this.reconnects += 1;
    this.show("reconnecting", this.text);
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    await this.follow(`${this.url}/resume`, { method: "POST" });
  }

  async follow(url, options) {
    this.connection = new AbortController();
    try {
      const response = await fetch(url, { ...options, signal: this.connection.signal });
      if (!response.ok) {
        const told = await response.json();
        this.finished = true;
        this.show(`error: ${told.error}`, this.text);
        return;
      }
      this.headers = Object.fromEntries(response.headers);
      await this.read(response.body.getReader());
    } catch (error) {
      this.log.push({ type: "(connection)", data: String(error) });
    }
    await this.reconnect();
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let buffer = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += decoder.decode(value, { stream: true });
      const lines = buffer.split("\n");
      buffer = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) this.handle(JSON.parse(line.slice(6)));
      }
    }
  }

  handle(message) {
    this.log.push(message);
    switch (message.type) {
      case "start":
        this.show("answering", this.text);
        break;
      case "content":
        this.text += message.data;
        this.show("answering", this.text);
        break;
      case "complete":
        this.finished = true;
        this.pieces = this.text;
        this.text = message.data;
        this.show("complete", this.text);
        break;
      case "error":
        if (message.retrying) {
          this.show(`retrying ${message.retry_count}`, this.text);
        } else if (message.final_error) {
          this.finished = true;
          this.show(`error: ${message.data}`, this.text);
        }
        break;
    }
  }

  drop() {
    this.connection?.abort();
  }

  async cancel() {
    this.finished = true;
    const response = await fetch(this.url, { method: "DELETE" });
    this.show((await response.json()).state, this.text);
  }
}

const parameters = new URLSearchParams(location.search);
const statuses = [];
const chat = new StreamingChat(parameters.get("server"), parameters.get("id"), (status, text) => {
  if (statuses.at(-1) !== status) statuses.push(status);
  document.getElementById("status").textContent = status;
  document.getElementById("answer").textContent = text;
});
document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  chat.send(document.getElementById("question").value);
});
document.getElementById("cancel").addEventListener("click", () => chat.cancel());
document.getElementById("drop").addEventListener("click", () => chat.drop());
