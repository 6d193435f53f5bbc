// What is refused, and how: an error with a code for programs and a hint for people, while a running call hears nothing
// of it.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Client, offer } from './harness/client.mjs';
import { Pulse } from './harness/pulse.mjs';
import { RunningCall } from './harness/running-call.mjs';
import { Stack } from './harness/stack.mjs';
import { claims, mint } from './harness/tokens.mjs';

const ROOM = 'refusals';

describe('refusals', () => {
  let ears;
  let stack;
  let call;

  before(async () => {
    ears = await Pulse.ears('ear');
    stack = await Stack.start();
    call = await RunningCall.start(stack, ears, 'ear');
  });

  after(async () => {
    await call?.stop();
    await stack?.stop();
    await ears?.stop();
  });

  /// The error that answers, or that comes just before the server closes.
  const errorOf = (client, reply) => (
    reply.type === 'error' ? reply : client.messages.findLast((message) => message.type === 'error') ?? reply
  );

  const refused = (error, code) => {
    const text = JSON.stringify(error).slice(0, 400);
    assert.equal(error.type, 'error', text);
    assert.ok([code].flat().includes(error.code), `not ${code}: ${text}`);
    assert.ok(error.message.length > 3 && error.hint.length > 3, `no words: ${text}`);
    assert.ok(text.length < 400, 'an error does not repeat what it was sent');
  };

  const now = Math.floor(Date.now() / 1000);
  const good = () => claims(ROOM, 'guest');
  const { exp: _, ...endless } = good();
  const tokens = [
    ['that has expired', 'token_expired', () => mint(stack.key, { ...good(), iat: now - 7200, exp: now - 3600 })],
    ['for another room', 'token_wrong_room', () => mint(stack.key, { ...good(), room: 'another' })],
    ['without an expiry', 'token_no_expiry', () => mint(stack.key, endless)],
    ['signed with HS512', 'token_algorithm', () => mint(stack.key, good(), { algorithm: 'HS512' })],
    ['with the algorithm none', 'token_algorithm', () => mint(stack.key, good(), { algorithm: 'none' })],
    ['that claims RS256', 'token_algorithm', () => mint(stack.key, good(), { header: { alg: 'RS256' } })],
    ['signed by a stranger', 'token_signature', () => mint({ ...stack.key, secret: 'x'.repeat(40) }, good())],
    ['of an unknown key', 'token_key_unknown', () => mint({ ...stack.key, id: 'nobody' }, good())],
    ['with a role that does not exist', 'token_role', () => mint(stack.key, { ...good(), role: 'king' })],
    ['that is no token', 'token_malformed', () => 'let me in'],
  ];
  for (const [what, code, token] of tokens) {
    it(`a token ${what} is refused as ${code}`, async () => {
      const client = await Client.connect(stack.ws(ROOM));
      refused(errorOf(client, await client.hello(token())), code);
      client.close();
    });
  }

  it('the running call heard nothing of the wrong tokens', () => call.untouched());

  const guest = async (role) => {
    const client = await Client.connect(stack.ws(ROOM));
    const welcome = await client.hello(stack.token(ROOM, `guest-${role}`, role));
    assert.equal(welcome.type, 'welcome', JSON.stringify(welcome));
    return client;
  };
  const offers = [
    ['a listener that offers a microphone', 'listener', 'role_forbids', () => offer(['sendonly', 'recvonly'])],
    ['an offer with video only', 'speaker', 'sdp_no_audio', () => offer(['sendrecv'], { kind: 'video', codec: 'VP8/90000' })],
    ['an offer without any m-line', 'speaker', 'sdp_no_audio', () => offer([])],
    ['an offer without Opus', 'speaker', 'sdp_no_opus', () => offer(['sendonly'], { codec: 'G722/8000' })],
    ['text that is no SDP', 'speaker', 'sdp_malformed', () => 'v=1\nhello'],
    ['an offer with 10,000 m-lines', 'speaker', ['sdp_too_many_media', 'sdp_too_large', 'message_too_large'],
      () => offer(Array.from({ length: 10_000 }, () => 'recvonly'))],
    ['a 10,000 m-line offer of few bytes', 'speaker', ['sdp_too_many_media', 'sdp_too_large', 'message_too_large'],
      () => offer(['recvonly']) + 'm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n'.repeat(9_999)],
    ['an offer of 2 MiB', 'speaker', ['sdp_too_large', 'message_too_large'],
      () => offer(['recvonly']) + `a=x:${'y'.repeat(1000)}\r\n`.repeat(2090)],
  ];
  for (const [what, role, code, sdp] of offers) {
    it(`${what} is refused as ${[code].flat()[0]}`, async () => {
      const client = await guest(role);
      refused(errorOf(client, await client.request({ type: 'offer', sdp: sdp() })), code);
      client.close();
    });
  }

  it('a socket that was refused an offer may make a better one', async () => {
    const client = await guest('speaker');
    refused(await client.request({ type: 'offer', sdp: offer([]) }), 'sdp_no_audio');
    const answer = await client.request({ type: 'offer', sdp: offer(['sendonly', 'recvonly', 'recvonly']) });
    assert.equal(answer.type, 'answer', JSON.stringify(answer));
    assert.match(answer.sdp, /^a=ice-lite/m);
    client.close();
  });

  it('a message of unknown type is refused and the socket stays open', async () => {
    const client = await guest('speaker');
    refused(await client.request({ type: 'teleport' }), 'unknown_type');
    assert.equal((await client.request({ type: 'leave' })).type, 'ok');
  });

  it('the running call heard nothing of the wrong offers', () => call.untouched());
});
