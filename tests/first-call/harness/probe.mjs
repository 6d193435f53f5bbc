// What is put into every page before its own scripts run: it watches each RTCPeerConnection from outside (offers made,
// what every receiver really decodes), and can feed a microphone. It does not know the page, so it works the same in the
// product's page and in the thin page of the protocol tests.
import { analyse } from './spectrum.mjs';

/// The script as text. `tone`: hertz of an oscillator in place of the microphone (left, right), for browsers whose fake
/// device cannot play a file. Voice processing is asked off: a noise suppressor takes a steady tone for noise.
export function probeScript({ tone = null } = {}) {
  return `(${install})(${JSON.stringify({ tone })}, ${analyse});`;
}

function install(config, analyse) {
  const connections = [];
  const taps = new Map();
  const NativeConnection = window.RTCPeerConnection;
  let context;
  const audio = () => (context ??= new AudioContext({ sampleRate: 48000 }));

  window.RTCPeerConnection = class extends NativeConnection {
    constructor(...args) {
      super(...args);
      this.__counts = { offers: 0, answers: 0 };
      this.__times = { sound: {} };
      this.addEventListener('connectionstatechange', () => {
        if (this.connectionState === 'connected') this.__times.connected ??= performance.now() - this.__times.offer;
      });
      connections.push(this);
    }

    async setLocalDescription(...args) {
      await super.setLocalDescription(...args);
      if (args[0]?.type === 'rollback') return;
      this.__counts.offers += 1;
      this.__times.offer ??= performance.now();
      this.__times.hello ??= firstSent - this.__times.offer;
    }

    async setRemoteDescription(...args) {
      await super.setRemoteDescription(...args);
      this.__counts.answers += 1;
      this.__times.answer ??= performance.now() - this.__times.offer;
      watchFirstSounds(this);
    }
  };

  // The decoded level of what each receiver has just played; needs no audio graph, which would take time to start.
  const watchFirstSounds = (connection) => {
    const { offer, sound } = connection.__times;
    const timer = setInterval(() => {
      for (const { mid, receiver } of connection.getTransceivers()) {
        const level = receiver.getSynchronizationSources?.()[0]?.audioLevel ?? 0;
        if (level > 0.01) sound[mid] ??= performance.now() - offer;
      }
    }, 10);
    setTimeout(() => clearInterval(timer), 60_000);
  };

  let sent = 0;
  let firstSent = null;
  const nativeSend = WebSocket.prototype.send;
  WebSocket.prototype.send = function send(data) {
    sent += 1;
    firstSent ??= performance.now();
    return nativeSend.call(this, data);
  };

  const microphones = [];
  if (navigator.mediaDevices) {
    const native = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    const oscillators = () => {
      const merger = audio().createChannelMerger(2);
      [config.tone.left, config.tone.right ?? config.tone.left].forEach((frequency, channel) => {
        const oscillator = new OscillatorNode(audio(), { frequency });
        const gain = new GainNode(audio(), { gain: config.tone.amplitude ?? 0.25 });
        oscillator.connect(gain).connect(merger, 0, channel);
        oscillator.start();
      });
      const out = audio().createMediaStreamDestination();
      merger.connect(out);
      return out.stream;
    };
    navigator.mediaDevices.getUserMedia = async (constraints = {}) => {
      if (!constraints.audio) return native(constraints);
      const asked = typeof constraints.audio === 'object' ? constraints.audio : {};
      microphones.push(asked);
      if (config.tone) return oscillators();
      const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      return native({ ...constraints, audio: { ...asked, ...plain } });
    };
  }

  const captured = [];
  if (navigator.mediaDevices?.getDisplayMedia) {
    const native = navigator.mediaDevices.getDisplayMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getDisplayMedia = async (options) => {
      const stream = await native(options);
      captured.push(...stream.getTracks());
      return stream;
    };
  }

  const tap = (track) => {
    if (!taps.has(track.id)) {
      const source = audio().createMediaStreamSource(new MediaStream([track]));
      const stereo = new GainNode(audio(), { channelCount: 2, channelCountMode: 'explicit' });
      const splitter = audio().createChannelSplitter(2);
      source.connect(stereo).connect(splitter);
      const analysers = [0, 1].map((channel) => {
        const analyser = new AnalyserNode(audio(), { fftSize: 16384 });
        splitter.connect(analyser, channel);
        return analyser;
      });
      taps.set(track.id, { source, analysers });
    }
    return taps.get(track.id).analysers;
  };

  const receiving = () => connections
    .filter((connection) => connection.connectionState !== 'closed')
    .flatMap((connection) => connection.getTransceivers())
    .filter((line) => line.mid !== null && /recv/.test(line.currentDirection ?? '') && line.receiver.track);

  window.__probe = {
    connections: () => connections.map((connection) => ({
      ...connection.__counts,
      state: connection.connectionState,
      ice: connection.iceConnectionState,
    })),

    sent: () => sent,

    /// States of all tracks that sharing ever gave: `live` or `ended`.
    captured: () => captured.map(({ readyState }) => readyState),

    /// What the page asked each microphone to be.
    microphones: () => microphones,

    timeline: () => connections.at(-1)?.__times,

    /// How long every receiver holds sound back at least; null leaves it to the browser.
    holdBack: (ms) => receiving().forEach((line) => { line.receiver.jitterBufferTarget = ms; }),

    /// Starts listening to every receiver; analysers know only what comes after this.
    attach() {
      void audio().resume();
      receiving().forEach((line) => tap(line.receiver.track));
      return receiving().length;
    },

    /// One entry for each receiving m-line that is not silent now.
    hear(tones) {
      this.attach();
      const heard = [];
      for (const { mid, receiver } of receiving()) {
        const [left, right] = tap(receiver.track).map((analyser) => {
          const samples = new Float32Array(analyser.fftSize);
          analyser.getFloatTimeDomainData(samples);
          let energy = 0;
          for (const sample of samples) energy += sample * sample;
          return energy / samples.length < 1e-8 ? null : analyse(samples, audio().sampleRate, tones);
        });
        if (!left && !right) continue;
        const named = (receiver.getContributingSources?.() ?? []).sort((a, b) => b.timestamp - a.timestamp);
        heard.push({ mid, csrc: named[0]?.source ?? null, left, right });
      }
      return heard;
    },

    async transports() {
      const reports = await Promise.all(connections.map((connection) => connection.getStats()));
      const transports = reports.flatMap((report) => [...report.values()]).filter(({ type }) => type === 'transport');
      return transports.map(({ dtlsState, tlsVersion, dtlsCipher, srtpCipher }) => ({ dtlsState, tlsVersion, dtlsCipher, srtpCipher }));
    },

    /// The selected pair of each transport: protocol of the browser's end, protocol and kind of the node's.
    async paths() {
      const reports = await Promise.all(connections.map((connection) => connection.getStats()));
      return reports.flatMap((report) => [...report.values()].filter(({ type }) => type === 'transport').map((transport) => {
        const pair = report.get(transport.selectedCandidatePairId);
        const [local, remote] = [report.get(pair?.localCandidateId), report.get(pair?.remoteCandidateId)];
        return { local: local?.protocol, remote: remote?.protocol, kind: remote?.candidateType };
      }));
    },

    /// Bits a second of payload that the page sends, over so many seconds.
    async sentBits(seconds) {
      const bytes = async () => {
        const reports = await Promise.all(connections.map((connection) => connection.getStats()));
        return reports.flatMap((report) => [...report.values()]).filter(({ type }) => type === 'outbound-rtp')
          .reduce((sum, { bytesSent }) => sum + bytesSent, 0);
      };
      const [before, from] = [await bytes(), performance.now()];
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      return ((await bytes()) - before) * 8000 / (performance.now() - from);
    },

    async inbound() {
      const out = {};
      for (const connection of connections) {
        for (const report of (await connection.getStats()).values()) {
          if (report.type !== 'inbound-rtp' || !report.packetsReceived) continue;
          out[report.mid ?? report.id] = {
            packets: report.packetsReceived,
            lost: report.packetsLost,
            concealed: report.concealedSamples,
            silent: report.silentConcealedSamples,
            total: report.totalSamplesReceived,
            // Sums over all samples that left the jitter buffer, in seconds.
            held_s: report.jitterBufferDelay,
            wanted_s: report.jitterBufferTargetDelay,
            emitted: report.jitterBufferEmittedCount,
          };
        }
      }
      return out;
    },
  };
}
