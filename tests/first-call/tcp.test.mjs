// A network that lets no UDP out: the call goes over TCP to the node's media port, with sound.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, it } from 'node:test';
import { Child, REPOSITORY } from './harness/processes.mjs';

// The namespace lives as long as what runs in it. Its rule is set before anything else is there.
const WITHOUT_UDP = `set -e
ip link set lo up
nft add table inet block
nft add chain inet block out '{ type filter hook output priority 0; }'
nft add rule inet block out meta l4proto udp counter drop
exec "$@"`;
const allowed = spawnSync('unshare', ['--net', 'true']).status === 0;

describe('tcp', { skip: allowed ? false : 'this machine does not allow network namespaces (unshare --net)' }, () => {
  it('two Chromium hear each other where no UDP gets through', async () => {
    const script = path.join(REPOSITORY, 'tests/first-call/harness/tcp-only-call.mjs');
    const call = new Child('tcp-only-call', 'unshare', ['--net', 'bash', '-c', WITHOUT_UDP, '_', process.execPath, script]);
    const { code } = await call.done;
    assert.equal(code, 0, call.log.slice(-4000));
    const result = JSON.parse(call.log.trimEnd().split('\n').at(-1));
    for (const name of ['ada', 'ben']) {
      const path_of = { local: 'tcp', remote: 'tcp', kind: 'host' };
      assert.deepEqual(result.paths[name], [path_of], name);
      assert.ok(result.peaks[name] > -25, `${name} hears at only ${result.peaks[name]} dB`);
    }
    assert.ok(result.connections >= 2, JSON.stringify(result));
    assert.ok(result.rtp_received > 50 && result.frames_received >= result.rtp_received, JSON.stringify(result));
  });
});
