// Three browsers of two makers in one room, on the product's own page, each with a tone of its own; then a fourth.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { eventually } from './harness/processes.mjs';
import { roster, shows } from './harness/product-page.mjs';
import { Pulse } from './harness/pulse.mjs';
import { analyse } from './harness/spectrum.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'voices';
const PEOPLE = [
  { name: 'ada', make: Browser.chromium, hz: 523, sink: 'ear_ada' },
  { name: 'ben', make: Browser.chromium, hz: 787, sink: 'ear_ben' },
  { name: 'cleo', make: Browser.firefox, hz: 1109, sink: 'ear_cleo' },
];
const LATE = { name: 'dan', make: Browser.chromium, hz: 1511, sink: 'ear_dan' };
const ALL = [...PEOPLE, LATE].map((person) => person.hz);
/// What a join may take from the page's hello until everybody is heard, and how often it is tried: another program on
/// the machine may hold up one browser once.
const JOIN_MS_MAX = 1000;
const JOIN_TRIES = 12;
const DTLS_VERSIONS = ['FEFC', 'FEFD'];
const AEAD_PROFILES = ['SRTP_AEAD_AES_128_GCM', 'SRTP_AEAD_AES_256_GCM'];

describe('voices', () => {
  let ears;
  let stack;

  const start = async (person) => {
    person.browser = await person.make({ hz: person.hz, ear: { pulse: ears, sink: person.sink } });
    person.recorder = ears.record(`${person.sink}.monitor`);
  };
  const enter = async (person) => {
    await start(person);
    person.tab = await person.browser.open(`${stack.link(ROOM, person.name)}&join=mic`);
  };
  const others = (person, people) => people.filter((other) => other !== person).map((other) => other.hz);

  before(async () => {
    ears = await Pulse.ears(...[...PEOPLE, LATE].map((person) => person.sink));
    stack = await Stack.start();
    for (const person of PEOPLE) await enter(person);
  });

  after(async () => {
    for (const person of [...PEOPLE, LATE]) {
      await person.browser?.close();
      await person.recorder?.stop();
    }
    await stack?.stop();
    await ears?.stop();
  });

  it('each of two Chromium and a Firefox hears the other two in slots of their own, and never itself', async () => {
    for (const person of PEOPLE) {
      const slots = await person.tab.hears(others(person, PEOPLE), { others: ALL });
      for (const slot of slots) {
        const side = slot.left ?? slot.right;
        assert.ok(side.peak_db > -25, `${person.name} hears ${side.peak_hz} Hz at only ${side.peak_db} dB`);
        assert.ok(side.levels[person.hz] < side.peak_db - OWN_VOICE_DB, `${person.name} hears itself: ${JSON.stringify(side)}`);
      }
    }
  });

  it('what leaves each browser for its sound device is the other two voices and not its own', async () => {
    for (const person of PEOPLE) {
      const heard = await eventually(`${person.name} plays the others`, async () => {
        const { levels } = analyse(await person.recorder.next(0.7), 48000, ALL);
        return others(person, PEOPLE).every((hz) => levels[hz] > -30) && levels;
      });
      const quietest = Math.min(...others(person, PEOPLE).map((hz) => heard[hz]));
      assert.ok(heard[person.hz] < quietest - OWN_VOICE_DB, `${person.name} plays itself: ${JSON.stringify(heard)}`);
    }
  });

  // Chromium names AES-CM before AES-GCM; the node looks at the hello and chooses AES-GCM all the same.
  it('each browser gets AES-GCM', async (test) => {
    for (const { tab } of PEOPLE) {
      const [transport, ...more] = await tab.transports();
      test.diagnostic(`${tab.name}: ${JSON.stringify(transport)}`);
      assert.deepEqual(more, [], 'one transport for everything');
      assert.equal(transport.dtlsState, 'connected', tab.name);
      assert.ok(DTLS_VERSIONS.includes(transport.tlsVersion), `${tab.name}: ${transport.tlsVersion}`);
      assert.ok(AEAD_PROFILES.includes(transport.srtpCipher), `${tab.name}: ${transport.srtpCipher}`);
    }
  });

  it('every packet names its speaker, and the page shows the same names', async () => {
    const [ada] = PEOPLE;
    const slots = await ada.tab.hears(others(ada, PEOPLE));
    assert.equal(new Set(slots.map((slot) => slot.csrc)).size, 2, 'two speakers, two CSRCs');
    assert.ok(slots.every((slot) => slot.csrc), `CSRC missing: ${JSON.stringify(slots)}`);
    assert.deepEqual(await roster(ada.tab), PEOPLE.map(({ name }) => name));
  });

  it('a fourth hears all within a second of its hello; the others send no message and offer nothing again', async (test) => {
    const sent = await Promise.all(PEOPLE.map((person) => person.tab.sent()));
    await start(LATE);
    const took = [];
    while (took.length < JOIN_TRIES && !took.some((ms) => ms <= JOIN_MS_MAX)) {
      await LATE.tab?.page.close();
      LATE.tab = await LATE.browser.open(stack.link(ROOM, LATE.name));
      await shows(LATE.tab, '#join-mic');
      await LATE.tab.page.click('#join-mic');
      await LATE.tab.hears(others(LATE, PEOPLE), { others: ALL });
      const times = await eventually('the page knows when each sound began', async () => {
        const found = await LATE.tab.timeline();
        if (Object.keys(found.sound).length !== PEOPLE.length) throw new Error(JSON.stringify(found));
        return found;
      });
      test.diagnostic(JSON.stringify(times));
      took.push(Math.max(...Object.values(times.sound)) - times.hello);
    }
    assert.ok(Math.min(...took) <= JOIN_MS_MAX, `ms from hello to the last of the sounds: ${took}`);
    for (const person of PEOPLE) await person.tab.hears(others(person, [...PEOPLE, LATE]));
    for (const [i, person] of PEOPLE.entries()) {
      assert.deepEqual(await person.tab.offers(), [1], `${person.name} offered once`);
      assert.equal(await person.tab.sent(), sent[i], `${person.name} sent something because another joined`);
    }
    assert.deepEqual(await LATE.tab.offers(), [1]);
  });

  it('a microphone muted in the page is silent for all others until it is unmuted', async () => {
    const [ada, ben] = PEOPLE;
    const everyone = [...PEOPLE, LATE];
    await ada.tab.page.evaluate(() => document.querySelector('#mute').click());
    await ben.tab.hears(others(ben, everyone).filter((hz) => hz !== ada.hz));
    await ada.tab.page.evaluate(() => document.querySelector('#mute').click());
    await ben.tab.hears(others(ben, everyone));
  });
});

/// Opus at 32 kb/s spreads some noise round a tone; a voice that came back to its speaker would be as loud as the others.
const OWN_VOICE_DB = 25;
