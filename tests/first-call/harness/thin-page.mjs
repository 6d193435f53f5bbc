// A client with nothing of the product's web client in it: the protocol of signaling/protocol/README.md written down once
// more, so that a defect of the client library cannot hide one of the servers (or the other way round). It runs in the
// page without a token, which connects to nothing.

/// Opens the thin client in `browser`.
export async function openThin(browser, origin) {
  const tab = await browser.open(`${origin}/`);
  await tab.page.evaluate(client);
  return tab;
}

/// Joins a room. Resolves with the welcome.
export function join(tab, { ws, token, mic = true, speech = 8, program = 2 }) {
  return tab.page.evaluate((options) => window.thin.join(options), { ws, token, mic, speech, program });
}

/// The roster and the slots as the thin client knows them.
export function known(tab) {
  return tab.page.evaluate(() => ({ roster: [...window.thin.roster.values()], slots: window.thin.slots }));
}

function client() {
  const state = { messages: [], slots: [], roster: new Map(), next: 1, waiting: new Map() };

  const request = (message) => new Promise((resolve, reject) => {
    const id = state.next++;
    state.waiting.set(id, { resolve, reject });
    state.socket.send(JSON.stringify({ ...message, id }));
  });

  const receive = (message) => {
    state.messages.push(message);
    if (message.type === 'slots') state.slots = message.slots;
    if (message.type === 'joined') state.roster.set(message.member.peer, message.member);
    if (message.type === 'left') state.roster.delete(message.peer);
    if (message.type === 'welcome') message.roster.forEach((member) => state.roster.set(member.peer, member));
    const waiting = state.waiting.get(message.re);
    if (!waiting) return;
    state.waiting.delete(message.re);
    if (message.type === 'error') waiting.reject(new Error(`${message.code}: ${message.message} (${message.hint})`));
    else waiting.resolve(message);
  };

  const connect = (url) => new Promise((resolve, reject) => {
    state.socket = new WebSocket(url, 'carillon.v1');
    state.socket.onopen = resolve;
    state.socket.onerror = () => reject(new Error('the socket does not open'));
    state.socket.onmessage = (event) => receive(JSON.parse(event.data));
    state.socket.onclose = (event) => { state.closed = { code: event.code, reason: event.reason }; };
  });

  const play = (track) => {
    const element = new Audio();
    element.srcObject = new MediaStream([track]);
    element.play().catch((error) => console.warn(`no sound: ${error.message}`));
    document.body.append(element);
  };

  // RFC 7587 section 6.1: without stereo=1 in its own offer a receiver is sent mono.
  const stereo = (sdp, mids) => sdp.split(/(?=^m=)/m).map((section) => {
    const mid = section.match(/^a=mid:(\S+)/m)?.[1];
    const opus = section.match(/^a=rtpmap:(\d+) opus/m)?.[1];
    if (!mids.includes(mid)) return section;
    return section.replace(new RegExp(`^(a=fmtp:${opus} .*)$`, 'm'), '$1;stereo=1;sprop-stereo=1');
  }).join('');

  state.join = async ({ ws, token, mic, speech, program }) => {
    await connect(ws);
    const welcome = await request({ type: 'hello', token });
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers: welcome.ice_servers });
    const uses = [];
    if (mic) {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      uses.push([connection.addTransceiver(stream.getAudioTracks()[0], { direction: 'sendonly' }), 'mic']);
    }
    const slot = (use) => uses.push([connection.addTransceiver('audio', { direction: 'recvonly' }), use]);
    for (let i = 0; i < speech; i++) slot('speech_slot');
    for (let i = 0; i < program; i++) slot('program_slot');
    connection.ontrack = (event) => play(event.track);
    const offer = await connection.createOffer();
    // Mids are given by setLocalDescription; both browsers number the m-lines from 0 in order.
    const programs = uses.map(([, use], i) => (use === 'program_slot' ? String(i) : null)).filter(Boolean);
    await connection.setLocalDescription({ type: 'offer', sdp: stereo(offer.sdp, programs) });
    const media = uses.map(([line, use]) => ({ mid: line.mid, use }));
    const answer = await request({ type: 'offer', sdp: connection.localDescription.sdp, media });
    await connection.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    Object.assign(state, { connection, welcome });
    return welcome;
  };

  state.request = request;
  window.thin = state;
}
