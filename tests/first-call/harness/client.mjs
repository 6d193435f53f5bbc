// The signalling protocol without any media stack: for tests of what is refused. SDP is written by hand.
import { createHash, randomBytes } from 'node:crypto';
import WebSocket from 'ws';

export class Client {
  static connect(url, { protocols = ['carillon.v1'], origin } = {}) {
    const client = new Client();
    client.messages = [];
    client.waiting = new Map();
    client.next = 1;
    client.socket = new WebSocket(url, protocols, { origin, maxPayload: 1 << 24, perMessageDeflate: false });
    client.closed = new Promise((resolve) => {
      client.socket.on('close', (code, reason) => {
        for (const { resolve: give } of client.waiting.values()) give({ type: 'closed', code, reason: String(reason) });
        resolve({ code, reason: String(reason) });
      });
    });
    client.socket.on('message', (data) => client.receive(JSON.parse(data)));
    return new Promise((resolve, reject) => {
      client.socket.on('open', () => resolve(client));
      client.socket.on('error', reject);
      client.socket.on('unexpected-response', (_, response) => reject(new Error(`HTTP ${response.statusCode}`)));
    });
  }

  receive(message) {
    this.messages.push(message);
    const waiting = this.waiting.get(message.re);
    this.waiting.delete(message.re);
    waiting?.resolve(message);
  }

  /// The answer to a request, an `error` as well as any other; `{type: 'closed'}` when the socket is closed instead.
  request(message) {
    const id = this.next++;
    return new Promise((resolve) => {
      this.waiting.set(id, { resolve });
      this.socket.send(JSON.stringify({ ...message, id }));
    });
  }

  hello(token) {
    return this.request({ type: 'hello', token });
  }

  close() {
    this.socket.terminate();
  }
}

/// An offer as a browser writes it, as far as a server looks. `lines`: directions of audio m-lines.
export function offer(lines, { kind = 'audio', codec = 'opus/48000/2' } = {}) {
  const digest = createHash('sha256').update(randomBytes(32)).digest('hex').toUpperCase();
  const fingerprint = digest.match(/../g).join(':');
  const mids = lines.map((_, i) => i);
  const head = [
    'v=0', `o=- ${randomBytes(4).readUInt32LE()} 2 IN IP4 127.0.0.1`, 's=-', 't=0 0',
    `a=group:BUNDLE ${mids.join(' ')}`, 'a=msid-semantic: WMS',
  ];
  const section = (direction, mid) => [
    `m=${kind} 9 UDP/TLS/RTP/SAVPF 111`, 'c=IN IP4 0.0.0.0', 'a=rtcp:9 IN IP4 0.0.0.0',
    `a=ice-ufrag:abcd`, `a=ice-pwd:${'p'.repeat(24)}`, 'a=ice-options:trickle', `a=fingerprint:sha-256 ${fingerprint}`,
    'a=setup:actpass', `a=mid:${mid}`, `a=${direction}`, 'a=rtcp-mux', `a=rtpmap:111 ${codec}`,
    'a=fmtp:111 minptime=10;useinbandfec=1', ...(/send/.test(direction) ? [`a=ssrc:${1000 + mid} cname:x`] : []),
  ];
  return [...head, ...lines.flatMap(section), ''].join('\r\n');
}
