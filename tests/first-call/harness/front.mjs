// A front of the server, for pages with something wrong in them: passes everything on, connections of the signalling too, but
// for scripts that the test gives instead or puts something before. It works the same in every browser, under the page's own
// content security policy.
import { createServer, request as ask } from 'node:http';

export class Front {
  /// `scripts`: paths, each with its text or (null) nothing there. `before`: what is put before each script whose path it matches.
  static async start(origin, { scripts = {}, before = [] } = {}) {
    const front = Object.assign(new Front(), { origin, scripts, before, sockets: new Set() });
    front.server = createServer((request, response) => front.serve(request, response));
    front.server.on('upgrade', (request, socket, head) => front.upgrade(request, socket, head));
    await new Promise((resolve) => front.server.listen(0, '127.0.0.1', resolve));
    return front;
  }

  /// The link of the same page behind this front.
  link(link) {
    const url = new URL(link);
    url.host = `${url.hostname}:${this.server.address().port}`;
    return url.href;
  }

  serve(request, response) {
    const { pathname } = new URL(request.url, this.origin);
    const own = this.scripts[pathname];
    if (own !== undefined) {
      response.writeHead(own === null ? 404 : 200, { 'content-type': 'text/javascript' }).end(own ?? '');
      return;
    }
    const { 'accept-encoding': _, ...headers } = request.headers;
    const { method } = request;
    const upstream = ask(new URL(request.url, this.origin), { method, headers }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
        const [, text = ''] = this.before.find(([pattern]) => pattern.test(pathname)) ?? [];
        const body = Buffer.concat([Buffer.from(text), ...chunks]);
        const { 'content-length': length, 'transfer-encoding': coding, etag, ...kept } = answer.headers;
        response.writeHead(answer.statusCode, { ...kept, 'content-length': body.length }).end(body);
      });
    });
    upstream.on('error', () => response.writeHead(502).end());
    request.pipe(upstream);
  }

  upgrade(request, socket, head) {
    const upstream = ask(new URL(request.url, this.origin), { headers: request.headers });
    upstream.on('upgrade', (answer, other, rest) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      socket.write(rest);
      other.write(head);
      socket.pipe(other).pipe(socket);
      this.keep(socket, other);
    });
    upstream.on('response', (answer) => socket.end(`HTTP/1.1 ${answer.statusCode} refused\r\n\r\n`));
    upstream.on('error', () => socket.destroy());
    upstream.end();
    this.keep(socket);
  }

  keep(...sockets) {
    for (const socket of sockets) {
      this.sockets.add(socket);
      socket.on('error', () => {}).on('close', () => {
        this.sockets.delete(socket);
        for (const other of sockets) other.destroy();
      });
    }
  }

  stop() {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
    this.server.closeAllConnections();
  }
}
