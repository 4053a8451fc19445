// A TCP proxy on loopback that breaks a connection after an exact number of bytes of the server's answer.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class CuttingProxy {
  #server;
  #sockets = new Set();
  #left;
  #how;
  /** Bytes of answers that came through. */
  carried = 0;
  connections = 0;
  /** Whether the cut that was ordered last has been made. */
  cut = false;

  constructor(target) {
    const { hostname, port } = new URL(target);
    this.#server = createServer((client) => this.#accept(client, connect({ host: hostname, port: Number(port), noDelay: true })));
  }

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Let `count` more bytes of answers through, over whichever connection, then break that one: "reset", "close" or "hang". */
  cutAfter(count, how = "reset") {
    this.#left = count;
    this.#how = how;
    this.cut = false;
  }

  stop() {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #accept(client, server) {
    this.connections += 1;
    client.setNoDelay(true);
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.pipe(server);
    let dead = false;
    server.on("data", (data) => {
      if (dead) return;
      if (this.#left === undefined || data.length < this.#left) {
        if (this.#left !== undefined) this.#left -= data.length;
        this.carried += data.length;
        client.write(data);
        return;
      }
      const last = data.subarray(0, this.#left);
      const how = this.#how;
      this.carried += last.length;
      this.#left = undefined;
      this.cut = dead = true;
      client.write(last, () => {
        if (how === "hang") return;
        if (how === "reset") client.resetAndDestroy();
        else client.destroy();
      });
    });
  }
}
