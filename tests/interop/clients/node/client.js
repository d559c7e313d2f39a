// A gRPC client in Node, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON.
'use strict';

const path = require('node:path');
const readline = require('node:readline');
const { promisify } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
require('@grpc/grpc-js-xds').register();

const PROTO = path.join(__dirname, '../../../../protos/greeter/v1/greeter.proto');
const { Greeter } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO)).greeter.v1;

const clients = new Map();

function opened(channel) {
  const client = clients.get(channel);
  if (!client) throw new Error(`there is no channel ${channel}`);
  return client;
}

const commands = {
  open({ channel, target, idle_seconds: idle }) {
    const options = idle === undefined ? {} : { 'grpc.client_idle_timeout_ms': idle * 1000 };
    clients.set(channel, new Greeter(target, grpc.credentials.createInsecure(), options));
    return {};
  },

  async call({ channel, times, timeout_seconds: timeout, wait_for_ready: waitForReady }) {
    const client = opened(channel);
    const sayHello = promisify(client.sayHello).bind(client);
    const hosts = [];
    const failures = [];
    for (let i = 0; i < times; i++) {
      const options = { deadline: Date.now() + timeout * 1000 };
      try {
        hosts.push((await sayHello({ name: 'Node' }, new grpc.Metadata({ waitForReady }), options)).hostname);
      } catch (error) {
        if (error.code === undefined) throw error; // not an error of gRPC
        failures.push({ code: grpc.status[error.code], details: error.details });
      }
    }
    return { hosts, failures };
  },

  close({ channel }) {
    opened(channel).close();
    clients.delete(channel);
    return {};
  },
};

async function answer(line) {
  try {
    const command = JSON.parse(line);
    if (!Object.hasOwn(commands, command.do)) throw new Error(`there is no command ${command.do}`);
    return await commands[command.do](command);
  } catch (error) {
    return { error: String(error) };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(line)));
  }
  for (const client of clients.values()) client.close();
}

main().then(() => process.exit(0));
