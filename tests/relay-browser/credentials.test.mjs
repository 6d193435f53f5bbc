// The broker's credentials at our relay and at Debian's coturn, those of coturn's tools at our relay, and a rotation of the
// secret while allocations are made without a pause.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Child, eventually } from '../first-call/harness/processes.mjs';
import { HOST, among, credential, metrics, portOf, startStack } from './harness/servers.mjs';
import { TurnClient } from './harness/turn.mjs';

const COTURN_PORT = 3600;
/// And the one after it.
const ECHO_PORT = 3710;
const OPEN_RELAY = { port: 3701, admin: 3702 };
const LEARNING_RELAY = { port: 3801, admin: 3802 };

describe('credentials', () => {
  let stack;
  let secret;
  const running = [];

  const start = (name, ...command) => {
    const child = new Child(name, 'nsenter', [`--net=${process.env.SERVERS_NET}`, ...command]);
    running.push(child);
    return child;
  };
  const client = (name, port) => {
    const turn = new TurnClient(name, HOST, port);
    running.push(turn);
    return turn;
  };

  before(async () => {
    stack = await startStack();
    secret = readFileSync(stack.ready.relay.secrets, 'utf8').trim();
  });

  after(async () => {
    for (const child of running) await child.stop();
    await stack?.stop();
  });

  it('are good at our relay and at coturn; a wrong password gets 401 while Binding is still answered', async () => {
    const coturn = start('coturn', 'stdbuf', '-oL', 'turnserver', '-n', `--listening-ip=${HOST}`, `--relay-ip=${HOST}`, '--no-tls', '--no-dtls',
      `--listening-port=${COTURN_PORT}`, '--no-cli', '--use-auth-secret', `--static-auth-secret=${secret}`, '--realm=coturn',
      '--min-port=20000', '--max-port=20099', '--log-file=stdout', `--pidfile=${path.join(stack.folder, 'coturn.pid')}`,
      `--userdb=${path.join(stack.folder, 'coturn.db')}`);
    const ours = client('turn-ours', portOf(stack.ready.relay.urls[0]));
    const theirs = client('turn-coturn', COTURN_PORT);
    await coturn.says(/Total General servers/);
    for (const [name, turn] of Object.entries({ ours, theirs })) {
      const minted = await credential(stack, 'ada');
      assert.equal((await turn.allocate(minted)).code, 200, name);
      assert.equal((await turn.allocate({ ...minted, password: `${minted.password}x` })).code, 401, name);
      assert.match((await turn.ask({ do: 'binding' })).mapped, new RegExp(`^${HOST}:`), name);
      assert.equal((await turn.allocate(minted)).code, 200, `${name}, after the wrong one`);
    }
  });

  it('of coturn’s own client, made from the secret, are good at our relay', async () => {
    // A relay beside the stack's, whose peer is an echo.
    start('relay-open', path.join(process.env.CARILLON_BIN_DIR, 'carillon'), 'relay', '--listen', HOST, '--port', String(OPEN_RELAY.port),
      '--peer', `${HOST}:${ECHO_PORT}-${ECHO_PORT + 1}`, '--realm', 'carillon', '--secret-file', stack.ready.relay.secrets,
      '--admin', `127.0.0.1:${OPEN_RELAY.admin}`, '--drain-seconds', '0');
    start('echo', 'turnutils_peer', '-L', HOST, '-p', String(ECHO_PORT));
    await eventually('the relay is ready', () => among('curl', '-sf', `http://127.0.0.1:${OPEN_RELAY.admin}/readyz`));
    // It takes the numbers of its channels by chance, from 16,383: one that it took twice it binds to two peers, and is refused.
    const call = () => among('turnutils_uclient', '-u', 'ada', '-W', secret, '-e', HOST, '-r', String(ECHO_PORT), '-n', '5', '-m', '1',
      '-p', String(OPEN_RELAY.port), HOST);
    const isChance = ({ stdout = '' }) => /channel bind: error 400|error 441/.test(stdout);
    const said = await call().catch((error) => (isChance(error) ? call() : Promise.reject(error)));
    const [, sent, received] = said.match(/tot_send_bytes ~ (\d+), tot_recv_bytes ~ (\d+)/g)?.at(-1)?.match(/(\d+)\D+(\d+)/) ?? [];
    assert.ok(Number(sent) > 0 && sent === received, said.slice(-1500));
  });

  it('reach the media nodes that signalling knows, at a relay that is told of none, and nobody else', async () => {
    start('relay-learning', path.join(process.env.CARILLON_BIN_DIR, 'carillon'), 'relay', '--listen', HOST, '--realm', 'carillon',
      '--port', String(LEARNING_RELAY.port), '--registry', stack.ready.admin.signaling, '--secret-file', stack.ready.relay.secrets,
      '--admin', `127.0.0.1:${LEARNING_RELAY.admin}`, '--drain-seconds', '0');
    await eventually('the relay knows a media node', () => among('curl', '-sf', `http://127.0.0.1:${LEARNING_RELAY.admin}/readyz`));
    const turn = client('turn-learning', LEARNING_RELAY.port);
    const minted = await credential(stack, 'ada');
    const reach = async (peer) => (await turn.ask({ do: 'reach', username: minted.username, password: minted.password, peer })).code;
    assert.equal(await reach(`${HOST}:${stack.media}`), 200);
    assert.equal(await reach(`${HOST}:${LEARNING_RELAY.port}`), 403);
    assert.equal(await reach(`192.0.2.2:${stack.media}`), 403);
  });

  it('whose secret is rotated under a continuous load: no Allocate is lost', async (test) => {
    const { broker, broker_key: key, secrets } = stack.ready.relay;
    const load = client('turn-load', portOf(stack.ready.relay.urls[0]));
    const early = await credential(stack, 'early');
    load.tell({ do: 'load', broker, key });
    await moreAllocations(stack, LOAD_STEP);
    const next = 'another-secret-of-the-tests-0123456789';
    // The relay learns the new one before the broker signs with it, and forgets the old one last.
    for (const lines of [[secret, next], [next, secret], [next]]) {
      await rotate(stack, secrets, lines);
      const minted = await credential(stack, 'ada');
      const signedWith = lines.find((one) => createHmac('sha1', one).update(minted.username).digest('base64') === minted.password);
      assert.equal(signedWith, lines[0], 'the first one signs');
      await moreAllocations(stack, LOAD_STEP);
    }
    load.tell({ do: 'end' });
    const { made, failed, names } = await load.answer();
    test.diagnostic(`${made} allocations with ${names} credentials`);
    assert.deepEqual(failed, {});
    assert.ok(made >= 4 * LOAD_STEP, `${made} made`);
    assert.equal((await client('turn-late', portOf(stack.ready.relay.urls[0])).allocate(early)).code, 401, 'the old secret is gone');
  });
});

/// Allocations of the load in each state of the secrets.
const LOAD_STEP = 50;

/// Replaces the file of secrets and waits until relay and broker have both read it.
async function rotate(stack, file, lines) {
  const reloads = async () => Promise.all(['relay', 'credential-broker'].map(async (process) => {
    const samples = Object.entries(await metrics(stack, process));
    return samples.filter(([name]) => /reloads_total\{.*"ok"/.test(name)).reduce((sum, [, value]) => sum + value, 0);
  }));
  const before = await reloads();
  writeFileSync(`${file}.new`, `${lines.join('\n')}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
  await eventually('relay and broker have read the secrets', async () => (await reloads()).every((count, i) => count > before[i]));
}

/// Waits until the relay has made so many more.
async function moreAllocations(stack, count) {
  const made = async () => Object.entries(await metrics(stack, 'relay'))
    .filter(([name]) => name.startsWith('relay_allocations_made_total'))
    .reduce((sum, [, value]) => sum + value, 0);
  const before = await made();
  await eventually(`${count} more allocations`, async () => (await made()) >= before + count, 30_000);
}
