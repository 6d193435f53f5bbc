// Two Chromium in a call on a machine that lets no UDP out. To be run by tcp.test.mjs, in a network namespace of its own;
// the last line of its output is one JSON object.
import { Browser } from './browser.mjs';
import { Stack } from './stack.mjs';

const ROOM = 'tcp';
const PEOPLE = [{ name: 'ada', hz: 523 }, { name: 'ben', hz: 787 }];

const stack = await Stack.start();
try {
  for (const person of PEOPLE) {
    person.browser = await Browser.chromium({ hz: person.hz });
    person.tab = await person.browser.open(`${stack.link(ROOM, person.name)}&join=mic`);
  }
  const [ada, ben] = PEOPLE;
  const heard = { ada: await ada.tab.hears([ben.hz]), ben: await ben.tab.hears([ada.hz]) };
  const peaks = Object.fromEntries(Object.entries(heard).map(([name, slots]) => [name, (slots[0].left ?? slots[0].right).peak_db]));
  const paths = { ada: await ada.tab.paths(), ben: await ben.tab.paths() };
  const metrics = await stack.metrics();
  const sum = (name) => Object.entries(metrics).filter(([key]) => key.startsWith(`${name}{`)).reduce((all, [, value]) => all + value, 0);
  console.log(JSON.stringify({
    peaks,
    paths,
    connections: sum('sfu_tcp_connections'),
    frames_received: sum('sfu_tcp_frames_received_total'),
    rtp_received: sum('sfu_rtp_received_total'),
    datagrams_sent_over_tcp: sum('sfu_tcp_frames_sent_total'),
    timeline: await ben.tab.timeline(),
  }));
} finally {
  for (const person of PEOPLE) await person.browser?.close();
  await stack.stop();
}
process.exit(0);
