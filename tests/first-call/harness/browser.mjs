// Real browsers, one process tree and one profile each, with their own microphone tone and their own PulseAudio sink.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { PATIENCE_MS, eventually, pause, remove } from './processes.mjs';
import { probeScript } from './probe.mjs';
import { writeTone } from './spectrum.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

export class Browser {
  /// `ear`: `{ pulse, sink }` that the browser plays into. `hz`: its microphone, or `says`: a WAV file that it says again and
  /// again. `shares`: the title of the tab that is
  /// chosen when a page asks what to share. The user interface that says yes to everything would share a pretended screen
  /// with a silent sound of its own; without it the browser captures the tab that has the title, as for a person.
  /// `authority`: a certificate authority (PEM) that it trusts beside the usual ones.
  static async chromium({
    hz = 440, says = null, ear = null, autoplay = true, window = '1280,900', shares = null, authority = null,
  } = {}) {
    const profile = mkdtempSync(path.join(tmpdir(), 'carillon-chromium-'));
    if (authority) trust(path.join(profile, '.pki/nssdb'), authority);
    const tone = says ?? writeTone(path.join(profile, 'microphone.wav'), { left: hz });
    const browser = await launch({
      executablePath: CHROMIUM,
      headless: true,
      userDataDir: profile,
      defaultViewport: null,
      protocolTimeout: 3 * PATIENCE_MS,
      timeout: 2 * PATIENCE_MS,
      env: { ...process.env, ...(ear?.pulse.env ?? {}), ...(ear ? { PULSE_SINK: ear.sink } : {}),
        ...(authority ? { HOME: profile } : {}) },
      // Puppeteer mutes a headless Chromium; here the sound is the point.
      ignoreDefaultArgs: ['--mute-audio'],
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
        '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
        '--disable-backgrounding-occluded-windows',
        '--allow-loopback-in-peer-connection',
        '--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints,Translate',
        ...(shares ? [`--auto-select-tab-capture-source-by-title=${shares}`, '--auto-accept-camera-and-microphone-capture']
          : ['--use-fake-ui-for-media-stream']),
        '--use-fake-device-for-media-stream',
        `--use-file-for-fake-audio-capture=${tone}`, `--window-size=${window}`,
        ...(autoplay ? ['--autoplay-policy=no-user-gesture-required'] : []),
      ],
    });
    return new Browser('chromium', hz, browser, profile, {});
  }

  /// Firefox lists no loopback address among its candidates whatever its settings say: the node must be advertised at an
  /// address of the machine's network, as `carillon dev` does by itself.
  static async firefox({ hz = 440, ear = null, authority = null } = {}) {
    const profile = mkdtempSync(path.join(tmpdir(), 'carillon-firefox-'));
    if (authority) trust(profile, authority);
    const browser = await launch({
      browser: 'firefox',
      executablePath: FIREFOX,
      headless: true,
      userDataDir: profile,
      defaultViewport: null,
      protocolTimeout: 3 * PATIENCE_MS,
      timeout: 2 * PATIENCE_MS,
      env: { ...process.env, ...(ear?.pulse.env ?? {}), ...(ear ? { PULSE_SINK: ear.sink } : {}), HOME: profile },
      extraPrefsFirefox: {
        'media.navigator.streams.fake': true,
        'media.navigator.permission.disabled': true,
        'media.autoplay.default': 0,
        'media.autoplay.blocking_policy': 0,
        'media.peerconnection.ice.obfuscate_host_addresses': false,
        'app.update.enabled': false,
        'media.gmp-manager.updateEnabled': false,
        'network.captive-portal-service.enabled': false,
        'network.connectivity-service.enabled': false,
      },
    });
    return new Browser('firefox', hz, browser, profile, { tone: { left: hz } });
  }

  constructor(kind, hz, browser, profile, probe) {
    Object.assign(this, { kind, hz, browser, profile, probe });
    this.pid = browser.process().pid;
    // Whatever ends the test, no browser stays behind.
    this.ending = () => this.kill9();
    process.once('exit', this.ending);
  }

  async open(url, { width, height = 800 } = {}) {
    const page = await this.browser.newPage();
    const tab = new Tab(this, page);
    if (width) await page.setViewport({ width, height });
    page.on('console', (message) => tab.console.push(message.text()));
    page.on('pageerror', (error) => tab.console.push(`page error: ${error.message}`));
    await page.evaluateOnNewDocument(probeScript(this.probe));
    await page.goto(url, { waitUntil: 'domcontentloaded', timeout: PATIENCE_MS });
    return tab;
  }

  async close() {
    await Promise.race([this.browser.close().catch(() => {}), pause(5000)]);
    this.kill9();
    process.off('exit', this.ending);
    remove(this.profile);
  }

  /// As a crash or a pulled plug: no goodbye of any kind.
  kill9() {
    try {
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
}

/// A browser that a busy machine does not let come up is started again: what it hears is tested, not how it starts.
async function launch(options) {
  for (let tries = 1; ; tries++) {
    try {
      return await puppeteer.launch(options);
    } catch (error) {
      if (tries === LAUNCH_TRIES) throw error;
    }
  }
}

const LAUNCH_TRIES = 3;

/// Puts the authority into the certificate database of a browser that has not run yet.
function trust(folder, authority) {
  mkdirSync(folder, { recursive: true });
  const certutil = (...args) => execFileSync('certutil', [...args, '-d', `sql:${folder}`], { stdio: 'pipe' });
  certutil('-N', '--empty-password');
  certutil('-A', '-n', 'test authority', '-t', 'C,,', '-i', authority);
}

/// One page of a browser, with the probe in it.
export class Tab {
  constructor(browser, page) {
    Object.assign(this, { browser, page, console: [] });
    this.name = `${browser.kind} ${browser.hz}`;
  }

  /// Runs `look` in the page and gives back what it returns. Unlike puppeteer's own evaluate it is no user gesture, which
  /// would allow the page to play sound.
  async look(look, ...args) {
    if (this.browser.kind !== 'chromium') return this.page.evaluate(look, ...args);
    this.session ??= await this.page.createCDPSession();
    const expression = `(${look})(...${JSON.stringify(args)})`;
    const options = { expression, returnByValue: true, awaitPromise: true, userGesture: false };
    const { result, exceptionDetails } = await this.session.send('Runtime.evaluate', options);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  connections() {
    return this.look(() => window.__probe.connections());
  }

  /// How often each peer connection of the page has offered.
  async offers() {
    return (await this.connections()).map((connection) => connection.offers);
  }

  /// How the media of each connection is protected: `dtlsState`, `tlsVersion`, `srtpCipher`, as far as the browser tells.
  transports() {
    return this.look(() => window.__probe.transports());
  }

  /// Where media goes: `local` and `remote` protocol and the remote `kind` of each transport's selected pair.
  paths() {
    return this.look(() => window.__probe.paths());
  }

  /// Messages that the page has sent to the server.
  sent() {
    return this.look(() => window.__probe.sent());
  }

  connected(timeout_ms = PATIENCE_MS) {
    return eventually(`${this.name} is connected`, async () => {
      const all = await this.connections();
      if (all.some((connection) => connection.state === 'connected')) return true;
      throw new Error(`${JSON.stringify(all)}; console: ${this.console.slice(-8).join(' | ')}`);
    }, timeout_ms, 100);
  }

  /// What each slot plays now, loud ones only.
  hear(tones = []) {
    return this.look((list) => window.__probe.hear(list), tones);
  }

  /// The heard slots, once exactly the tones `expected` are heard, one in each slot, at a settled level. `others` are
  /// measured too.
  hears(expected, { timeout_ms = PATIENCE_MS, others = [] } = {}) {
    const wanted = [...expected].sort((a, b) => a - b);
    return eventually(`${this.name} hears ${wanted}`, async () => {
      const slots = await this.hear([...expected, ...others]);
      const found = slots.map((slot) => (slot.left ?? slot.right).peak_hz).sort((a, b) => a - b);
      const same = found.length === wanted.length && found.every((hz, i) => Math.abs(hz - wanted[i]) <= 4);
      if (!same) throw new Error(`hears ${found.map(Math.round)}; console: ${this.console.slice(-8).join(' | ')}`);
      // An analyser that was attached a moment ago is still partly empty.
      const steady = (side) => !side || Math.abs(side.rms_db + 3.01 - side.peak_db) < 3 || side.peak_db > -25;
      if (!slots.every((slot) => steady(slot.left) && steady(slot.right))) throw new Error('levels are not settled');
      return slots;
    }, timeout_ms, 150);
  }

  inbound() {
    return this.look(() => window.__probe.inbound());
  }

  /// When things happened, in ms after the offer: `hello` (the page's first message, so negative), `answer`, `connected`,
  /// and the first `sound` of each receiver.
  timeline() {
    return this.look(() => window.__probe.timeline());
  }
}
