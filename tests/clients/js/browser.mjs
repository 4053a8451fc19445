// Headless Chromium driven from outside: a line of JSON in is a command, a line of JSON out its result. Ends with its input.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const PATIENCE_MS = 5000;

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    // Chromium calls home otherwise; these tests have no network.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const pages = new Map();

const commands = {
  async open({ number, url, scheme }) {
    const context = await browser.newContext({ colorScheme: scheme, viewport: { width: 1100, height: 850 } });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const exchanges = [];
    const complaints = [];
    page.on("requestfinished", async (request) => {
      const response = await request.response();
      exchanges.push({ method: request.method(), url: request.url(), status: response?.status() ?? null, failure: null });
    });
    page.on("requestfailed", (request) =>
      exchanges.push({ method: request.method(), url: request.url(), status: null, failure: request.failure()?.errorText }),
    );
    page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} ${message.location().url}`));
    page.on("pageerror", (error) => complaints.push(String(error)));
    pages.set(number, { context, page, exchanges, complaints });
    await page.goto(url);
  },
  click: ({ page, selector }) => page.click(selector),
  fill: ({ page, selector, value }) => page.fill(selector, value),
  text: ({ page, selector }) => page.innerText(selector),
  evaluate: ({ page, expression }) => page.evaluate(expression),
  async until({ page, expression }) {
    // Not `waitForFunction`: a page's own policy may forbid what that does.
    const deadline = performance.now() + PATIENCE_MS;
    while (!(await page.evaluate(expression))) {
      if (performance.now() > deadline) throw new Error(`it never came true that ${expression}: ${await page.innerText("body")}`);
      await page.evaluate(() => new Promise(requestAnimationFrame));
    }
  },
  async screenshot({ page, path, full = true }) {
    await page.screenshot({ path, fullPage: full });
  },
  exchanges: ({ exchanges }) => exchanges,
  complaints: ({ complaints }) => complaints,
  async close({ context, number }) {
    pages.delete(number);
    await context.close();
  },
};

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
say("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const { name, page: number, ...rest } = JSON.parse(line);
  try {
    say({ result: (await commands[name]({ ...pages.get(number), number, ...rest })) ?? null });
  } catch (error) {
    say({ error: String(error) });
  }
}
await browser.close();
