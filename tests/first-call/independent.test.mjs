// aiortc, a stack that shares no line with browsers or with us, as speaker and as listener, with each DTLS role and each
// SRTP profile, against a Chromium in the same room.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Aiortc } from './harness/aiortc.mjs';
import { Browser } from './harness/browser.mjs';
import { Stack } from './harness/stack.mjs';
import { join, openThin } from './harness/thin-page.mjs';

const ROOM = 'independent';
const CHROMIUM_HZ = 620;
const AIORTC_HZ = 900;

describe('independent stack', () => {
  let stack;
  let browser;
  let tab;

  before(async () => {
    stack = await Stack.start();
    browser = await Browser.chromium({ hz: CHROMIUM_HZ });
    tab = await openThin(browser, stack.origin);
    await join(tab, { ws: stack.ws(ROOM), token: stack.token(ROOM, 'chromium') });
  });

  after(async () => {
    await browser?.close();
    await stack?.stop();
  });

  const guest = (role, options) => new Aiortc(stack.ws(ROOM), stack.token(ROOM, 'aiortc', role), options);

  // An offer with setup:active makes the node the DTLS server.
  const combinations = [
    { setup: 'active', profile: 'GCM-128', openssl: 'SRTP_AEAD_AES_128_GCM', role: 'client' },
    { setup: 'passive', profile: 'GCM-256', openssl: 'SRTP_AEAD_AES_256_GCM', role: 'server' },
    { setup: 'active', profile: 'CM-80', openssl: 'SRTP_AES128_CM_SHA1_80', role: 'client' },
    { setup: 'passive', profile: 'CM-80', openssl: 'SRTP_AES128_CM_SHA1_80', role: 'server' },
  ];
  for (const { setup, profile, openssl, role } of combinations) {
    it(`aiortc as DTLS ${role} with ${profile} speaks, hears Chromium, and never itself`, async () => {
      const peer = guest('speaker', { tone: AIORTC_HZ, setup, profile });
      try {
        const connected = await peer.says('connected');
        assert.deepEqual({ profile: connected.profile, role: connected.role }, { profile: openssl, role });
        const slots = await tab.hears([AIORTC_HZ]);
        assert.ok((slots[0].left ?? slots[0].right).peak_db > -25, JSON.stringify(slots));
        const [heard] = await peer.hears([CHROMIUM_HZ]);
        assert.ok(heard.left_db > -25, JSON.stringify(heard));
      } finally {
        await peer.stop();
      }
      await tab.hears([]);
    });
  }

  it('aiortc that only listens hears Chromium', async () => {
    const peer = guest('listener');
    try {
      await peer.hears([CHROMIUM_HZ]);
    } finally {
      await peer.stop();
    }
  });

  it('aiortc that only publishes program sound is heard in a program slot', async () => {
    const peer = guest('publisher', { tone: AIORTC_HZ, kind: 'program', speech: 0, program: 0 });
    try {
      const [slot] = await tab.hears([AIORTC_HZ]);
      const uses = await tab.page.evaluate(() => window.thin.slots);
      assert.equal(uses.find((use) => use.mid === slot.mid)?.kind, 'program', JSON.stringify(uses));
    } finally {
      await peer.stop();
    }
  });
});
