// The aiortc participant of peer.py as a child process.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Child, Fatal, PATIENCE_MS, REPOSITORY, eventually } from './processes.mjs';

export class Aiortc {
  /// `options` are the flags of peer.py: tone, kind, setup, profile, speech, program.
  constructor(ws, token, options = {}) {
    const flags = Object.entries({ ws, token, ...options }).flatMap(([name, value]) => [`--${name}`, String(value)]);
    this.child = new Child('aiortc', python(), [path.join(REPOSITORY, 'tests/first-call/harness/peer.py'), ...flags]);
  }

  get events() {
    return this.child.log.split('\n').filter((line) => line.startsWith('{')).flatMap((line) => {
      try {
        return [JSON.parse(line)];
      } catch {
        return []; // The last line may not be complete yet.
      }
    });
  }

  says(event, timeout_ms = PATIENCE_MS) {
    return eventually(`aiortc says ${event}`, () => {
      const found = this.events.find((line) => line.event === event);
      if (!found && this.child.exited) throw new Fatal(`aiortc ended: ${this.child.log.slice(-1500)}`);
      return found;
    }, timeout_ms);
  }

  /// What was heard last in each slot, once every tone in `tones` is there and no other.
  hears(tones, timeout_ms = PATIENCE_MS) {
    const from = this.events.length;
    return eventually(`aiortc hears ${tones}`, () => {
      const slots = new Map();
      for (const line of this.events.slice(from)) if (line.event === 'heard') slots.set(line.mid, line);
      const found = [...slots.values()];
      const close = (hz) => found.some((line) => Math.abs(line.left_hz - hz) <= 4);
      return found.length === tones.length && tones.every(close) ? found : null;
    }, timeout_ms, 100);
  }

  stop() {
    return this.child.stop();
  }
}

export function python() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(REPOSITORY, 'target');
  const own = path.join(target, 'venv/bin/python');
  return process.env.PYTHON ?? (existsSync(own) ? own : 'python3');
}
