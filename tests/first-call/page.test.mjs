// How the page looks and what it says, at the widths of a desk, of a tablet and of telephones. The pictures are in
// tests/out/first-call for a person to look at.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Aiortc } from './harness/aiortc.mjs';
import { Browser } from './harness/browser.mjs';
import { OUT, eventually, pause } from './harness/processes.mjs';
import { coveredByNotice, layoutProblems, lines, programs, roster, shows, state } from './harness/product-page.mjs';
import { Pulse } from './harness/pulse.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'weekly-meeting';
const ADA_HZ = 620;
const CHIARA_HZ = 500;
const DESKTOP_HZ = 900;
/// The listener's browser has a microphone too; it is never asked for it.
const SILENT_HZ = 1511;
const WIDTHS = [1280, 768, 360, 320];
/// The longest transition of the page's style.
const TRANSITION_MS = 400;

describe('page', () => {
  let ears;
  let stack;
  let ada;
  let strict;
  const guests = [];

  before(async () => {
    mkdirSync(OUT, { recursive: true });
    ears = await Pulse.ears('ear');
    stack = await Stack.start();
    const tokens = { ws: stack.ws(ROOM) };
    const guest = (name, role, options) => guests.push(new Aiortc(tokens.ws, stack.token(ROOM, name, role), options));
    guest('Chiara De Angelis-Montefiore', 'speaker', { tone: CHIARA_HZ });
    guest('Design desktop', 'publisher', { tone: DESKTOP_HZ, kind: 'program', speech: 0, program: 0 });
    ada = await Browser.chromium({ hz: ADA_HZ, ear: { pulse: ears, sink: 'ear' } });
    strict = await Browser.chromium({ hz: SILENT_HZ, ear: { pulse: ears, sink: 'ear' }, autoplay: false });
  });

  after(async () => {
    await ada?.close();
    await strict?.close();
    for (const guest of guests) await guest.stop();
    await stack?.stop();
    await ears?.stop();
  });

  /// Takes the picture at each width and fails when the layout is broken there.
  const picture = async (tab, name, selectors) => {
    const problems = [];
    for (const width of WIDTHS) {
      await tab.page.setViewport({ width, height: 780 });
      await pause(TRANSITION_MS);
      await tab.page.screenshot({ path: path.join(OUT, `page-${name}-${width}.png`) });
      problems.push(...(await layoutProblems(tab, selectors)).map((problem) => `${width} px: ${problem}`));
    }
    assert.deepEqual(problems, []);
  };

  const tabs = {};

  it('before joining it says where one is going, and both ways in are in reach', async () => {
    tabs.ada = await ada.open(stack.link(ROOM, 'Ada'), { width: 1280 });
    await shows(tabs.ada, '#join-card');
    await picture(tabs.ada, 'before-join', ['#join-card', '#name', '#join-mic', '#join-listen']);
    assert.match(await tabs.ada.look(() => document.body.innerText), new RegExp(ROOM));
    assert.ok(!(await tabs.ada.look(() => location.href + document.body.innerText)).includes('undefined'));
  });

  it('in the call it shows everybody, the program sound and the controls', async () => {
    await tabs.ada.page.setViewport({ width: 1280, height: 780 });
    await tabs.ada.page.click('#join-mic');
    await eventually('the page is in the call', async () => (await state(tabs.ada)) === 'in_call');
    await eventually('the roster is complete', async () => (await roster(tabs.ada)).length === 3);
    await eventually('the program sound plays', async () => (await programs(tabs.ada)).join() === 'playing');
    await picture(tabs.ada, 'in-call', ['#state', '#roster', '#programs', '#mute', '#settings', '#leave']);
    // Words that take a second line when they change would move the cards below.
    await tabs.ada.page.setViewport({ width: 360, height: 780 });
    assert.equal(await lines(tabs.ada, '#low-delay-words'), 1);
    await tabs.ada.page.click('#settings');
    await picture(tabs.ada, 'sound-settings', ['#settings-panel', '#mute', '#settings', '#leave']);
    await tabs.ada.page.click('#settings');
  });

  it('a passing notice covers nobody', async () => {
    const problems = [];
    for (const width of WIDTHS) {
      // Flat, so that there is more of the page than of the window.
      await tabs.ada.page.setViewport({ width, height: 520 });
      await pause(TRANSITION_MS);
      for (const text of ['Bo joined', 'Wilhelmina von Hohenstein-Oberkirch joined']) {
        problems.push(...(await coveredByNotice(tabs.ada, text)).map((problem) => `${width} px: ${problem}`));
      }
    }
    assert.deepEqual(problems, []);
  });

  it('where the browser refuses autoplay it asks for a tap, and after the tap there is sound', async () => {
    const tab = await strict.open(`${stack.link(ROOM, 'Mute Listener', 'listener')}&join=listen`, { width: 1280 });
    tabs.listener = tab;
    await eventually('the page is in the call', async () => (await state(tab)) === 'in_call');
    await shows(tab, '#tap-for-sound');
    await picture(tab, 'autoplay-refused', ['#state', '#sound-blocked', '#tap-for-sound', '#leave']);
    await tab.page.click('#tap-for-sound');
    await eventually('the page plays', () => tab.look(() => (
      !document.querySelector('#tap-for-sound').checkVisibility() && !window.__carillon.soundBlocked
    )));
    await tab.hears([ADA_HZ, CHIARA_HZ, DESKTOP_HZ]);
  });

  it('when the media node falls silent it says so, and comes back by itself', async () => {
    const sfu = stack.ready.processes.sfu;
    process.kill(sfu, 'SIGSTOP');
    try {
      await eventually('the page says that the connection is lost', async () => (await state(tabs.ada)) === 'lost');
      await picture(tabs.ada, 'lost-connection', ['#state', '#state-hint', '#leave']);
    } finally {
      process.kill(sfu, 'SIGCONT');
    }
    for (const tab of [tabs.ada, tabs.listener]) {
      await eventually('the page is back in the call', async () => (await state(tab)) === 'in_call');
    }
    // The guests of another stack do not come back by themselves; the two pages do.
    await tabs.listener.hears([ADA_HZ]);
  });

  it('whoever leaves is told so, and may come back', async () => {
    await tabs.listener.page.setViewport({ width: 1280, height: 780 });
    await tabs.listener.page.click('#leave');
    await shows(tabs.listener, '#rejoin');
    await picture(tabs.listener, 'left', ['#notice', '#rejoin']);
  });

  it('an address without an invitation is told in words', async () => {
    const tab = await ada.open(`${stack.origin}/r/${ROOM}`, { width: 1280 });
    await shows(tab, '#notice');
    await picture(tab, 'no-invitation', ['#notice']);
  });

  it('no page wrote an error to the console', () => {
    assert.deepEqual(tabs.ada.console.filter((line) => /page error|Refused to|Content Security/i.test(line)), []);
  });
});
