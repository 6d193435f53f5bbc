// The small client turn.py as a child among the servers: one command, one answer.
import path from 'node:path';
import { Child, Fatal, REPOSITORY, eventually } from '../../first-call/harness/processes.mjs';

const SCRIPT = path.join(REPOSITORY, 'tests/relay-browser/turn.py');

export class TurnClient {
  constructor(name, host, port) {
    const args = [`--net=${process.env.SERVERS_NET}`, 'python3', SCRIPT, host, String(port)];
    this.child = new Child(name, 'nsenter', args, { stdin: 'pipe' });
    this.answered = 0;
  }

  tell(command) {
    this.child.process.stdin.write(`${JSON.stringify(command)}\n`);
  }

  async answer() {
    const line = await eventually(`${this.child.name} answers`, () => {
      const lines = this.child.log.split('\n').slice(0, -1);
      if (lines.length <= this.answered && this.child.exited) throw new Fatal(`it ended: ${this.child.log.slice(-2000)}`);
      return lines[this.answered];
    }, 20_000);
    this.answered += 1;
    return JSON.parse(line);
  }

  ask(command) {
    this.tell(command);
    return this.answer();
  }

  /// From a port that the server does not know yet.
  allocate({ username, password }) {
    return this.ask({ do: 'fresh', username, password });
  }

  stop() {
    return this.child.stop();
  }
}
