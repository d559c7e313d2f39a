// A gRPC client in Node, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON.
'use strict';

const path = require('node:path');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const xds = require('@grpc/grpc-js-xds');

xds.register();

const PROTO = path.join(__dirname, '../../../../protos/greeter/v1/greeter.proto');
const { Greeter } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO)).greeter.v1;
const { requestSerialize, responseDeserialize } = Greeter.service.SayHello;

const clients = new Map();
const loads = new Map();

function opened(channel) {
  const client = clients.get(channel);
  if (!client) throw new Error(`there is no channel ${channel}`);
  return client;
}

// Makes one call. Any method takes these messages, so that routes by method can be told apart.
function call({ channel, method, metadata: headers, timeout_seconds: timeout, wait_for_ready: waitForReady }) {
  const metadata = new grpc.Metadata({ waitForReady });
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const options = { deadline: Date.now() + timeout * 1000 };
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const done = (error, reply) => {
      const milliseconds = Math.round((performance.now() - began) * 10) / 10;
      if (!error) {
        resolve({ host: reply.hostname, milliseconds });
      } else if (error.code === undefined) {
        reject(error); // not an error of gRPC
      } else {
        const failure = { code: grpc.status[error.code], details: error.details, milliseconds };
        resolve({ failure, milliseconds });
      }
    };
    const request = { name: 'Node' };
    opened(channel).makeUnaryRequest(method, requestSerialize, responseDeserialize, request, metadata, options, done);
  });
}

function failuresOf(results) {
  return results.filter((result) => result.failure).map((result) => result.failure);
}

const commands = {
  open({ channel, target, idle_seconds: idle }) {
    const options = idle === undefined ? {} : { 'grpc.client_idle_timeout_ms': idle * 1000 };
    // Encrypts if the control plane says so.
    const encryption = new xds.XdsChannelCredentials(grpc.credentials.createInsecure());
    clients.set(channel, new Greeter(target, encryption, options));
    return {};
  },

  // Serves a greeter as the control plane says, until the program ends.
  serve({ name, port }) {
    const server = new xds.XdsServer();
    server.addService(Greeter.service, { sayHello: (_, reply) => reply(null, { hostname: name }) });
    const encryption = new xds.XdsServerCredentials(grpc.ServerCredentials.createInsecure());
    return new Promise((resolve, reject) => {
      server.bindAsync(`0.0.0.0:${port}`, encryption, (error) => (error ? reject(error) : resolve({})));
    });
  },

  async call({ times, concurrency, ...options }) {
    opened(options.channel);
    const results = [];
    let left = times;
    const worker = async () => {
      while (left-- > 0) results.push(await call(options));
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    return {
      hosts: results.filter((result) => !result.failure).map((result) => result.host),
      failures: failuresOf(results),
      milliseconds: results.map((result) => result.milliseconds),
    };
  },

  load_start({ parallelism, interval_seconds: interval, ...options }) {
    opened(options.channel);
    const load = { stopped: false, results: [] };
    const worker = async () => {
      while (!load.stopped) {
        load.results.push(await call(options));
        await sleep(interval * 1000);
      }
    };
    load.workers = Promise.all(Array.from({ length: parallelism }, worker));
    loads.set(options.channel, load);
    return {};
  },

  async load_stop({ channel }) {
    const load = loads.get(channel);
    loads.delete(channel);
    load.stopped = true;
    await load.workers;
    const hosts = {};
    for (const { host } of load.results) {
      if (host !== undefined) hosts[host] = (hosts[host] ?? 0) + 1;
    }
    const slowest = load.results.reduce((most, result) => Math.max(most, result.milliseconds), 0);
    return { hosts, failures: failuresOf(load.results), slowest };
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
