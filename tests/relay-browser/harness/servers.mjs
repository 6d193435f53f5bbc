// The servers' side of the cable: `carillon dev` in a namespace of its own, and the firewall in front of it.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Stack } from '../../first-call/harness/stack.mjs';

const run = promisify(execFile);
export const HOST = '192.0.2.1';

/// Runs a program among the servers; gives back what it prints.
export async function among(command, ...args) {
  const { stdout } = await run('nsenter', [`--net=${process.env.SERVERS_NET}`, command, ...args], { maxBuffer: 1 << 24, timeout: 20_000 });
  return stdout;
}

export async function startStack() {
  const certificate = ['--tls-cert', process.env.CHAIN, '--tls-key', process.env.CHAIN_KEY];
  const stack = await Stack.start({ args: ['--advertise', HOST, '--host', 'servers.test', ...certificate] });
  // Browsers are on another machine, as it were: only HTTPS gives them a microphone.
  stack.origin = new URL(stack.ready.https.page).origin;
  return stack;
}

/// Drops what comes over the cable and matches one of the rules, and nothing else.
export async function firewall(...rules) {
  await among('nft', 'flush', 'chain', 'inet', 'firewall', 'input');
  for (const rule of rules) {
    await among('nft', 'add', 'rule', 'inet', 'firewall', 'input', 'iifname', 'far', ...rule.split(' '), 'counter', 'drop');
  }
}

/// Packets that the firewall has dropped since it was set.
export async function dropped() {
  const rules = await among('nft', 'list', 'chain', 'inet', 'firewall', 'input');
  return [...rules.matchAll(/counter packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
}

/// A credential as a page gets it, from the broker of the stack.
export async function credential(stack, person) {
  const { broker, broker_key: key } = stack.ready.relay;
  const url = `${broker}/turn?username=${person}`;
  return JSON.parse(await among('curl', '-sf', '-H', `authorization: Bearer ${key}`, url));
}

/// The samples of the admin port of one of the processes: `name{labels}` to number.
export async function metrics(stack, process) {
  const text = await among('curl', '-sf', `${stack.ready.admin[process]}/metrics`);
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return Object.fromEntries(lines.map((line) => [line.replace(/ \S+$/, ''), Number(line.match(/ (\S+)$/)[1])]));
}

export function portOf(url) {
  return Number(url.match(/:(\d+)\?/)[1]);
}
