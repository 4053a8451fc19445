// Preloaded into a Node server that names no address to listen on: every TCP listener goes to 127.0.0.1.
"use strict";

const net = require("node:net");

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...args) {
  const callback = args.findLast((value) => typeof value === "function");
  const [first] = args;
  const options = first !== null && typeof first === "object" ? { ...first } : { port: Number(first) };
  if (options.path !== undefined || options.fd !== undefined || !Number.isInteger(Number(options.port))) {
    throw new Error("only TCP listeners with a port are allowed here");
  }
  return listen.call(this, { ...options, host: "127.0.0.1" }, ...(callback ? [callback] : []));
};
