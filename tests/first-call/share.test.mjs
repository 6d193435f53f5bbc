// The sound of another tab as program sound: what Chromium captures there is heard by others in a program slot, in stereo,
// and by nobody twice.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { PATIENCE_MS, eventually } from './harness/processes.mjs';
import { programs, shows } from './harness/product-page.mjs';
import { Pulse } from './harness/pulse.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'share';
const ADA_HZ = 440;
const BEN_HZ = 1511;
const LEFT_HZ = 620;
const RIGHT_HZ = 1000;
const ALL = [ADA_HZ, BEN_HZ, LEFT_HZ, RIGHT_HZ];
const AMPLITUDE_DB = -12.04; // A quarter of full scale.
const SEPARATION_DB_MIN = 40;
const SINE_CREST_DB = 3.01; // Between the peak of a sine and its RMS.
const TITLE = 'Music to share';
/// A tab that plays left and right, as any page with sound.
const MUSIC = `data:text/html,${encodeURIComponent(`<title>${TITLE}</title><script>
  const audio = new AudioContext();
  const merger = new ChannelMergerNode(audio, { numberOfInputs: 2 });
  [${LEFT_HZ}, ${RIGHT_HZ}].forEach((frequency, channel) => {
    const tone = new OscillatorNode(audio, { frequency });
    tone.connect(new GainNode(audio, { gain: 0.25 })).connect(merger, 0, channel);
    tone.start();
  });
  merger.connect(audio.destination);
</script>`)}`;

describe('share', () => {
  let ears;
  let stack;
  let music;
  const ada = { hz: ADA_HZ, sink: 'ear_ada', shares: TITLE };
  const ben = { hz: BEN_HZ, sink: 'ear_ben' };

  before(async () => {
    ears = await Pulse.ears(ada.sink, ben.sink);
    stack = await Stack.start();
    for (const [name, person] of Object.entries({ ada, ben })) {
      const { hz, sink, shares } = person;
      person.browser = await Browser.chromium({ hz, shares, ear: { pulse: ears, sink } });
      if (shares) music = await person.browser.open(MUSIC);
      person.tab = await person.browser.open(`${stack.link(ROOM, name)}&join=mic`);
    }
    await ada.tab.hears([BEN_HZ]);
    await ben.tab.hears([ADA_HZ]);
  });

  after(async () => {
    await ada.browser?.close();
    await ben.browser?.close();
    await stack?.stop();
    await ears?.stop();
  });

  /// As a person does it: getDisplayMedia answers only to a click.
  const clickShare = async () => {
    await ada.tab.page.bringToFront();
    await ada.tab.page.click('#share');
  };
  const shareButton = () => ada.tab.look(() => document.querySelector('#share').innerText.trim());
  /// Tracks of the tab that are not ended. The picture that comes with the sound must be among the ended ones.
  const captures = () => ada.tab.look(() => window.__probe.captured().filter((state) => state === 'live'));
  const words = () => ben.tab.look(() => [...document.querySelectorAll('#programs .program')].map((card) => ({
    title: card.querySelector('h3').innerText,
    status: card.querySelector('.status').innerText,
  })));

  /// Ben's slot with the tab in it, once both sides are steady tones, apart and at the level they play at: the sound begins in
  /// the middle of an analyser's window, and a machine that stalls leaves a hole in one. What is wrong stays wrong.
  const heardByBen = () => eventually('ben hears the tab steadily, left and right apart', async () => {
    const slots = await ben.tab.hears([ADA_HZ, LEFT_HZ], { others: ALL });
    const { mid, csrc, left, right } = slots.find((slot) => Math.abs((slot.left ?? slot.right).peak_hz - LEFT_HZ) <= 4);
    const heard = { mid, csrc, left, right };
    for (const [side, mine, other] of [[left, LEFT_HZ, RIGHT_HZ], [right, RIGHT_HZ, LEFT_HZ]]) {
      assert.ok(side && Math.abs(side.peak_db - side.rms_db - SINE_CREST_DB) <= 0.1, `unsteady: ${JSON.stringify(heard)}`);
      assert.ok(side.levels[mine] - side.levels[other] >= SEPARATION_DB_MIN, `channels are mixed: ${JSON.stringify(heard)}`);
      assert.ok(Math.abs(side.levels[mine] - AMPLITUDE_DB) <= 1, `another level: ${JSON.stringify(heard)}`);
      assert.ok(side.levels[ADA_HZ] < AMPLITUDE_DB - SEPARATION_DB_MIN, `a voice in it: ${JSON.stringify(heard)}`);
    }
    return heard;
  }, 2 * PATIENCE_MS, 200);

  it('another hears the tab in a program slot, left and right apart, at the level it plays at', async (test) => {
    assert.deepEqual(await programs(ben.tab), []);
    await clickShare();
    const heard = await heardByBen();
    test.diagnostic(`heard: ${JSON.stringify(heard)}`);
    await eventually('the stream and its track are named', async () => {
      const stream = await ben.tab.look((mid) => {
        const { kind, name } = window.__carillon.streams().find((one) => one.mid === mid) ?? {};
        return { kind, name };
      }, heard.mid);
      assert.deepEqual(stream, { kind: 'program', name: 'ada' });
      const track = await ben.tab.look(() => (
        window.__carillon.roster.find(({ name }) => name === 'ada')?.tracks.find(({ kind }) => kind === 'program')
      ));
      assert.deepEqual(track, { kind: 'program', csrc: heard.csrc, muted: false, live: true });
      return true;
    });
  });

  it('the card of the other names the sharer and says that it plays; the sharer’s button offers to stop', async () => {
    await eventually('the card plays', async () => (await programs(ben.tab)).join() === 'playing');
    assert.deepEqual(await words(), [{ title: 'Shared by ada', status: 'Playing' }]);
    assert.equal(await shareButton(), 'Stop sharing');
    await shows(ada.tab, '#share[aria-pressed=true]');
  });

  it('the sharer does not get it back', async () => {
    const [slot] = await ada.tab.hears([BEN_HZ], { others: ALL });
    for (const side of [slot.left, slot.right].filter(Boolean)) {
      assert.ok(Math.max(side.levels[LEFT_HZ], side.levels[RIGHT_HZ]) < side.peak_db - 25, JSON.stringify(side));
    }
    assert.deepEqual(await programs(ada.tab), []);
  });

  it('stop sharing ends it, in the sound and in the words, and nothing is captured any more', async () => {
    assert.deepEqual(await captures(), ['live']);
    await clickShare();
    await ben.tab.hears([ADA_HZ]);
    await eventually('the card has ended', async () => (await programs(ben.tab)).join() === 'ended');
    assert.deepEqual(await words(), [{ title: 'Shared by ada', status: 'Shared sound has stopped' }]);
    assert.equal(await shareButton(), 'Share tab sound');
    assert.deepEqual(await captures(), []);
  });

  it('shared once more it is heard once more, and a tab that is closed ends it too', async () => {
    await clickShare();
    await heardByBen();
    await eventually('the same card plays', async () => (await programs(ben.tab)).join() === 'playing');
    await music.page.close();
    await ben.tab.hears([ADA_HZ]);
    await eventually('the card has ended', async () => (await programs(ben.tab)).join() === 'ended');
    assert.equal(await shareButton(), 'Share tab sound');
  });

  it('none of it was negotiated: each page has offered once', async () => {
    for (const { tab } of [ada, ben]) {
      assert.deepEqual(await tab.offers(), [1]);
      assert.equal(await tab.look(() => window.__carillon.offersMade), 1);
    }
  });
});
