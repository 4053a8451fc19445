// A real `cauce serve`, in a process of its own, in front of an upstream. CAUCE_PYTHON names the Python that has Cauce.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PYTHON = process.env.CAUCE_PYTHON ?? fileURLToPath(new URL("../../../../.venv/bin/python", import.meta.url));

export class Server {
  #process;
  #folder;
  url;

  async start(upstream) {
    this.#folder = await mkdtemp(join(tmpdir(), "cauce-js-"));
    const file = join(this.#folder, "cauce.toml");
    const config = `
      [server]
      data_dir = "${this.#folder}/data"
      drain = 0
      [discovery]
      enabled = false
      [streams]
      heartbeat = 1
      [retry]
      attempts = 1
      [providers.up]
      kind = "openai"
      base_url = "${upstream}"
      api_key = "upstream-key"
      default_model = "m"
    `;
    await writeFile(file, config);
    this.#process = spawn(PYTHON, ["-m", "cauce", "serve", "--config", file, "--port", "0"], {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, HOME: this.#folder, LANG: "C.UTF-8", PYTHONUNBUFFERED: "1" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let told = "";
    for await (const data of this.#process.stdout.iterator({ destroyOnReturn: false })) {
      told += data;
      const found = /listens on (http:\/\/\S+:\d+)/.exec(told);
      if (found) {
        this.url = found[1];
        this.#process.stdout.resume();
        return this;
      }
    }
    throw new Error(`the server did not start:\n${told}`);
  }

  async stop() {
    if (this.#process !== undefined && this.#process.exitCode === null) {
      this.#process.kill("SIGTERM");
      await once(this.#process, "exit");
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}
