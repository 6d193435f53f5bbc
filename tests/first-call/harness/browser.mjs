// Real browsers, one process tree and one profile each, with their own microphone tone and their own PulseAudio sink.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { eventually } from './processes.mjs';
import { probeScript } from './probe.mjs';
import { writeTone } from './spectrum.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

export class Browser {
  /// `ear`: `{ pulse, sink }` that the browser plays into. `hz`: its microphone.
  static async chromium({ hz = 440, ear = null, autoplay = true, window = '1280,900' } = {}) {
    const profile = mkdtempSync(path.join(tmpdir(), 'carillon-chromium-'));
    const tone = writeTone(path.join(profile, 'microphone.wav'), { left: hz });
    const browser = await puppeteer.launch({
      executablePath: CHROMIUM,
      headless: true,
      userDataDir: profile,
      defaultViewport: null,
      protocolTimeout: 60_000,
      env: { ...process.env, ...(ear?.pulse.env ?? {}), ...(ear ? { PULSE_SINK: ear.sink } : {}) },
      // Puppeteer mutes a headless Chromium; here the sound is the point.
      ignoreDefaultArgs: ['--mute-audio'],
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
        '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
        '--allow-loopback-in-peer-connection',
        '--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints,Translate',
        '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
        `--use-file-for-fake-audio-capture=${tone}`, `--window-size=${window}`,
        ...(autoplay ? ['--autoplay-policy=no-user-gesture-required'] : []),
      ],
    });
    return new Browser('chromium', hz, browser, profile, {});
  }

  static async firefox({ hz = 440, ear = null } = {}) {
    const profile = mkdtempSync(path.join(tmpdir(), 'carillon-firefox-'));
    const browser = await puppeteer.launch({
      browser: 'firefox',
      executablePath: FIREFOX,
      headless: true,
      userDataDir: profile,
      defaultViewport: null,
      protocolTimeout: 60_000,
      env: { ...process.env, ...(ear?.pulse.env ?? {}), ...(ear ? { PULSE_SINK: ear.sink } : {}), HOME: profile },
      extraPrefsFirefox: {
        'media.navigator.streams.fake': true,
        'media.navigator.permission.disabled': true,
        'media.autoplay.default': 0,
        'media.autoplay.blocking_policy': 0,
        'media.peerconnection.ice.loopback': true,
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
    this.console = [];
  }

  async open(url, { width, height } = {}) {
    this.page = await this.browser.newPage();
    if (width) await this.page.setViewport({ width, height: height ?? 800 });
    this.page.on('console', (message) => this.console.push(message.text()));
    this.page.on('pageerror', (error) => this.console.push(`page error: ${error.message}`));
    await this.page.evaluateOnNewDocument(probeScript(this.probe));
    await this.page.goto(url, { waitUntil: 'domcontentloaded', timeout: 30_000 });
    return this.page;
  }

  async offers() {
    return (await this.page.evaluate(() => window.__probe.connections())).map((connection) => connection.offers);
  }

  connected() {
    return eventually(`${this.kind} ${this.hz} is connected`, async () => {
      const all = await this.page.evaluate(() => window.__probe.connections());
      return all.some((connection) => connection.state === 'connected');
    }, 20_000, 100).catch((error) => {
      throw new Error(`${error.message}; console: ${this.console.slice(-10).join(' | ')}`);
    });
  }

  /// What each slot plays now, loud ones only.
  hear(tones = []) {
    return this.page.evaluate((list) => window.__probe.hear(list), tones);
  }

  /// Resolves with the heard slots once exactly the tones `expected` are heard, one slot each.
  hears(expected, { timeout_ms = 20_000, all = expected } = {}) {
    return eventually(`${this.kind} ${this.hz} hears ${expected}`, async () => {
      const slots = await this.hear(all);
      const found = slots.map((slot) => Math.round(slot.left?.peak_hz ?? slot.right.peak_hz)).sort((a, b) => a - b);
      const wanted = [...expected].sort((a, b) => a - b);
      const same = found.length === wanted.length && found.every((hz, i) => Math.abs(hz - wanted[i]) <= 4);
      if (!same) throw new Error(`hears ${JSON.stringify(found)}`);
      return slots;
    }, timeout_ms, 100);
  }

  inbound() {
    return this.page.evaluate(() => window.__probe.inbound());
  }

  async close() {
    await Promise.race([this.browser.close().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 5000))]);
    try {
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // Closed as asked.
    }
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  /// As a crash or a pulled plug: no goodbye of any kind.
  kill9() {
    process.kill(this.pid, 'SIGKILL');
  }
}
